import { Option } from "commander";
import { Random, UsageError } from "../../core/index.js";
import {
  formatResultRows,
  measureSpeed,
  measureSplit,
  resultRow,
  type SplitTimes,
  type TimeSplit,
} from "../../eval/index.js";
import { machine, peakResidentBytes, processorMs } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { embeddedTexts } from "../embedded.js";
import { bytes, digits, table } from "../format.js";
import { machineInWords } from "../machine.js";
import { integer } from "../numbers.js";
import {
  attentionOptions,
  exitsOption,
  expertRanksOption,
  machineOptions,
  modelArgument,
  repeatsOption,
  residentOptions,
  sparsityOption,
  textOption,
  weightsOption,
} from "../options.js";
import { type ComparisonOptions, openComparison, readTokens, type Session } from "../session.js";

interface BenchOptions extends CommonOptions, ComparisonOptions {
  against?: string[];
  text?: string;
  prefillTokens: number;
  contextTokens?: number;
  decodeTokens: number;
  repeats: number;
  split?: boolean;
}

const tokenCount = (flag: string, use: string) =>
  new Option(`--${flag} <n>`, use).argParser(integer({ min: 1, max: 1_000_000 }));

export const command: CommandDefinition<BenchOptions> = {
  description:
    "Times a dense prefill and then decoding of real text, batch 1. With --against all models take turns in one run, so that a " +
    "machine that slows down or is shared harms all alike. Rows give medians over the rounds.",
  arguments: [modelArgument],
  options: [
    new Option(
      "--against <model...>",
      "models to compare with; 'dense' is MODEL without its thresholds, pattern, policy and exits",
    ),
    textOption("to decode (default: a book that comes with rarefy; random tokens for a model without tokenizer)"),
    tokenCount("prefill-tokens", "tokens of the timed prefill").default(128),
    tokenCount("context-tokens", "positions in the cache when decoding begins (default: those of the prefill)"),
    tokenCount("decode-tokens", "tokens of the timed decode").default(64),
    repeatsOption(),
    new Option("--split", "also where the time of a token goes: io, attention, ffn, head, sampling"),
    ...attentionOptions(),
    sparsityOption(),
    exitsOption(),
    weightsOption(),
    ...residentOptions(),
    expertRanksOption(),
    ...machineOptions(),
  ],
  examples: ["rarefy bench tiny-6m --weights q8", "rarefy bench tiny-sparse --against dense --threads 2 --json"],
  async run(context, options, [argument]) {
    using comparison = await openComparison(context, [argument, ...(options.against ?? [])], options);
    const { variants, first, severalModels } = comparison;
    const leaving = variants.find(({ exits, model }) => exits?.probed(model.config.layers).length)?.exits;
    if (options.split && leaving !== undefined) {
      throw new UsageError(
        `--split times every layer, and tokens leave early (${leaving.text}); give --exits never or no --split`,
      );
    }
    const { prefillTokens, contextTokens = prefillTokens, decodeTokens, repeats } = options;
    const tokens = await tokensToDecode(context, first, options.text, contextTokens + decodeTokens);
    const speeds = await measureSpeed(variants, tokens, {
      prefillTokens,
      contextTokens,
      decodeTokens,
      repeats,
      processorMs,
      // The process's own peak belongs to no single model when there are several.
      ...(!severalModels && { residentBytes: peakResidentBytes }),
      ...context,
    });
    const { backend } = first.model;
    const readBandwidth = await backend.measureReadBandwidth?.();
    const rows = speeds.map((speed, v) => {
      const { weights } = variants[v].model;
      return resultRow({
        ...variants[v],
        model: speed.name,
        weights,
        speed,
        backend: variants[v].model.backend.info.id,
        readBandwidth,
      });
    });
    const splits: SplitTimes[] = [];
    for (const variant of options.split ? variants : []) {
      splits.push(
        await measureSplit(variant, tokens, { prefillTokens, contextTokens, decodeTokens, repeats, ...context }),
      );
    }
    const document = { rows, ...(options.split && { splits }), backend: backend.info.description, machine: machine() };
    const memory = severalModels ? "peak: held by the model's backend." : "peak: resident memory of the process.";
    const notes = [memory, `${backend.info.description}; ${machineInWords(document.machine)}.`];
    const parts = splits.length === 0 ? "" : `\n${splitTable(splits)}\n`;
    const reads = splits.flatMap(({ name, decodeReads }) =>
      decodeReads === undefined
        ? []
        : [
            `${name} reads ${bytes(decodeReads.bytes)} of its files for a decoded token, in ${digits(decodeReads.reads, 3)} reads.`,
          ],
    );
    notes.unshift(...reads);
    context.print(`${formatResultRows(rows)}\n${parts}${notes.join("\n")}\n`);
    return document;
  },
};

/** Milliseconds of a token by what they are spent on. */
function splitTable(splits: readonly SplitTimes[]): string {
  const rows = splits.flatMap(({ name, prefill, decode }) => [
    { name, phase: "prefill", ...prefill },
    { name, phase: "decode", ...decode },
  ]);
  const part = (title: string, msOf: (row: TimeSplit) => number) => ({
    title: `${title}\nms/token`,
    cell: (row: TimeSplit) => digits(msOf(row), 3),
  });
  return table(
    [
      { title: "model", cell: ({ name }) => name, align: "left" },
      { title: "phase", cell: ({ phase }) => phase, align: "left" },
      part("io", ({ ioMs }) => ioMs),
      part("attention", ({ attentionMs }) => attentionMs),
      part("ffn", ({ ffnMs }) => ffnMs),
      part("head", ({ headMs }) => headMs),
      part("sampling", ({ samplingMs }) => samplingMs),
      part("together", (row) => row.ioMs + row.attentionMs + row.ffnMs + row.headMs + row.samplingMs),
    ],
    rows,
  );
}

/** Real text where there is any: activations on it decide how sparse they are. */
async function tokensToDecode(
  context: Context,
  session: Session,
  text: string | undefined,
  needed: number,
): Promise<Uint32Array> {
  const hasTokenizer = await session.files.open("tokenizer.json");
  await hasTokenizer?.close();
  if (text !== undefined || hasTokenizer !== undefined) {
    return (await readTokens(context, session.files, text ?? embeddedTexts.evaluation)).tokens;
  }
  const random = new Random(0);
  return Uint32Array.from({ length: needed }, () => random.integer(session.model.config.vocabSize));
}
