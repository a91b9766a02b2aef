import type { ResultRow, Variant } from "../../eval/index.js";
import { evaluateQuality, formatResultRows, measureSpeed, resultRow } from "../../eval/index.js";
import { speedRatio } from "../../eval/internal.js";
import { readText } from "../../io/index.node.js";
import { machine } from "../../jobs/index.js";
import { calibrateActivationSparsity, toThresholds } from "../../pipeline/index.js";
import { collect, generate } from "../../runtime/index.js";
import { type Tokenizer, tokenizeText } from "../../text/index.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { embeddedModel, embeddedTexts } from "../embedded.js";
import { count, digits, duration, percent, terminalText } from "../format.js";
import { measureLargeShape } from "../largeShape.js";
import { machineInWords } from "../machine.js";
import {
  calibrationWindowsOption,
  type MachineOptions,
  machineOptions,
  maxWindowsOption,
  repeatsOption,
  timedTokens,
  type WeightsOption,
  weightsOption,
} from "../options.js";
import { openSession, type Session } from "../session.js";
import { sideBySide, wrap } from "../sideBySide.js";
import { openTokenizer } from "../tokenizer.js";

interface DemoOptions extends CommonOptions, MachineOptions, WeightsOption {
  calibrationWindows: number;
  maxWindows: number;
  repeats: number;
}

const sparsities = [0.25, 0.4, 0.5];
const window = 512;
const sample = { prompt: "The old house stood at the end of the lane, and", maxTokens: 72, temperature: 0.7, seed: 7 };
const width = 96;

interface Sample {
  name: string;
  text: string;
  tokenIds: number[];
}

export const command: CommandDefinition<DemoOptions> = {
  description:
    "Measures on random weights that no cache holds what skipping gains, then on the embedded model of 6.5 million parameters what " +
    "it costs: TEAL thresholds for 25, 40 and 50 % activation sparsity against the dense model, quality and speed in one run. Both " +
    "models write.",
  options: [calibrationWindowsOption(), maxWindowsOption(20), repeatsOption(), weightsOption(), ...machineOptions()],
  examples: ["rarefy demo", "rarefy demo --weights q8 --threads 1"],
  async run(context, options) {
    const startMs = performance.now();
    using session = await openSession(context, embeddedModel, options);
    const { model } = session;
    const tokenizer = await openTokenizer(context, session.files);
    context.print(`${model.backend.info.description}\n${machineInWords(machine())}\n\n${gainHeading(context)}\n\n`);
    const large = await measureLargeShape(context, options, Math.min(options.repeats, 3));
    context.print(`${formatResultRows(large)}\n\n${costHeading(context, session, options)}\n\n`);

    const variants = await sparseVariants(context, session, tokenizer, options);
    const rows = await measure(context, variants, tokenizer, options);
    context.print(`${formatResultRows(rows)}\n\n${reading(rows)}\n\n`);

    const samples: Sample[] = [];
    for (const { name, thresholds } of [variants[0], variants[variants.length - 1]]) {
      const { prompt, ...sampling } = sample;
      const steps = generate(model, tokenizer.encode(prompt), {
        ...sampling,
        thresholds: thresholds ?? "dense",
        tokenizer,
        signal: context.signal,
      });
      const { text, tokenIds } = await collect(steps);
      samples.push({ name, text, tokenIds });
    }
    context.print(`${writing(context, samples)}\n\n${nextSteps(context)}\n`);
    const elapsedMs = performance.now() - startMs;
    context.note(`The demo took ${duration(elapsedMs)}.`);
    return {
      rows,
      large,
      samples,
      prompt: sample.prompt,
      backend: model.backend.info.description,
      machine: machine(),
      elapsedMs,
    };
  },
};

/** The dense model, and the same weights with thresholds for every sparsity. */
async function sparseVariants(
  context: Context,
  { model }: Session,
  tokenizer: Tokenizer,
  { calibrationWindows }: DemoOptions,
): Promise<Variant[]> {
  const text = await tokenizeText(tokenizer, await readText(embeddedTexts.calibration), {
    maxTokens: window * calibrationWindows,
  });
  const { records } = await calibrateActivationSparsity(model, text, {
    sparsities,
    window,
    calibrationWindows,
    ...context,
  });
  const sparse = records.map((record) => ({
    name: `${percent(record.sparsity)} sparse`,
    model,
    thresholds: toThresholds(record),
  }));
  return [{ name: "dense", model }, ...sparse];
}

/** Quality on a book that the model never saw, then speed on the same text. */
async function measure(
  context: Context,
  variants: readonly Variant[],
  tokenizer: Tokenizer,
  { maxWindows, repeats }: DemoOptions,
): Promise<ResultRow[]> {
  const text = await tokenizeText(tokenizer, await readText(embeddedTexts.evaluation), {
    maxTokens: Math.max(window * maxWindows, timedTokens),
  });
  const qualities = await evaluateQuality(variants, text, { window, maxWindows, ...context });
  const speeds = await measureSpeed(variants, text.tokens, {
    decodeTokens: 128,
    repeats,
    ...context,
  });
  const { backend, weights } = variants[0].model;
  const readBandwidth = await backend.measureReadBandwidth?.();
  return qualities.map((quality, v) =>
    resultRow({ model: quality.name, weights, quality, speed: speeds[v], backend: backend.info.id, readBandwidth }),
  );
}

const gainHeading = ({ colors }: Context) =>
  wrap(
    `${colors.bold("What it gains")}: 132 million random weights in the shape of TinyLlama-1.1B, 3 of its 22 layers. No cache holds them, ` +
      "so this is what skipping saves on this machine. Random weights have a speed and no quality.",
    width,
  ).join("\n");

function costHeading({ colors }: Context, { model }: Session, { calibrationWindows }: DemoOptions): string {
  const { layers, hiddenSize } = model.config;
  return wrap(
    `${colors.bold("What it costs")}: tiny-6m, a Llama of 6.5 million parameters (${layers} layers, hidden ${hiddenSize}), trained on ` +
      "public-domain books. By TEAL inputs below a threshold count as zero, and their columns of the weights are never read. " +
      `Thresholds for ${sparsities.map((share) => percent(share)).join(", ")} zeros come from ${count(calibrationWindows * window)} tokens ` +
      "of text; nothing is trained.",
    width,
  ).join("\n");
}

/** What the figures say, in sentences made from them. */
function reading(rows: readonly ResultRow[]): string {
  const [dense, ...sparse] = rows;
  const change = (row: ResultRow) => {
    const bytes = 1 - row.bytesPerToken! / dense.bytesPerToken!;
    const ratio = speedRatio(row, dense);
    const speed = ratio === undefined ? "" : `decode ${digits(ratio, 3)} × dense, `;
    const perplexity = row.perplexity! / dense.perplexity! - 1;
    return `${row.model}: ${percent(bytes)} fewer bytes per token, ${speed}perplexity ${perplexity < 0 ? "−" : "+"}${percent(Math.abs(perplexity), 1)}.`;
  };
  const sentences = [
    ...sparse.map(change),
    "",
    "A third of this model is its output matrix, which stays dense, and all of it fits a processor's cache, so its time follows the " +
      "bytes less than that of the larger weights above. Larger models lose less at the same sparsity.",
  ];
  return sentences.flatMap((sentence) => wrap(sentence, width)).join("\n");
}

function writing({ colors }: Context, samples: readonly Sample[]): string {
  const columns = samples.map(({ name, text }) => ({ title: name, text: terminalText(text.trim()) }));
  const how = `temperature ${sample.temperature}, seed ${sample.seed}, ${sample.maxTokens} tokens each`;
  return `${colors.bold(`“${sample.prompt} …”`)}  ${colors.dim(how)}\n\n${sideBySide(columns, width)}`;
}

function nextSteps({ colors }: Context): string {
  const commands = [
    [
      "calibrate org/name --text notes.txt --sparsity 0.4 --weights q8 -o sparse",
      "any checkpoint of a family in docs/formats.md",
    ],
    ["eval sparse --text other.txt --against dense", "what it cost"],
    ["bench sparse --against dense", "what it gained"],
    ["run sparse", "talk to it"],
  ];
  const longest = Math.max(...commands.map(([command]) => command.length));
  const lines = commands.map(([command, use]) => `  npx rarefy ${command.padEnd(longest)}  ${colors.dim(use)}`);
  return ["Your own model:", ...lines].join("\n");
}
