import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import {
  conventions,
  evaluateQuality,
  formatResultRows,
  type ResultRow,
  resultRow,
  type Variant,
} from "../../eval/index.js";
import { needsBegin } from "../../eval/internal.js";
import { resolveModel } from "../../io/index.node.js";
import { beginToken } from "../../text/internal.js";
import type { CommandDefinition } from "../command.js";
import type { EvalOptions } from "../evalOptions.js";
import { evaluationOverQueue } from "../evaluateOverQueue.js";
import { expertLoads } from "../expertLoads.js";
import { integer } from "../numbers.js";
import {
  adapterOption,
  attentionOptions,
  bosOption,
  exitsOption,
  expertRanksOption,
  machineOptions,
  modelArgument,
  prefillOption,
  residentOptions,
  sparsityOption,
  textOption,
  weightsOption,
  windowOption,
} from "../options.js";
import { queueOption } from "../queueOptions.js";
import { denseKeyword, openComparison, readTokens } from "../session.js";
import { readTaskMeasure, taskOptions } from "../taskOptions.js";
import { measureTasksInDetail, taskOutputOptions } from "../taskOutput.js";

export const command: CommandDefinition<EvalOptions> = {
  description:
    "Perplexity over windows of the text: no overlap, no begin-of-text token, mean over all predicted tokens. --bos, --stride " +
    "and --convention measure as others do: llama.cpp and lm-eval begin with a begin-of-text token where the tokenizer has " +
    "one. --json also has perplexity per word and byte, and bits per byte. With --against " +
    "both models see the same windows in one run, and the divergence from the other one is measured too. With --kv tokens are " +
    "run one by one, as in decoding.",
  arguments: [modelArgument],
  options: [
    textOption("to evaluate on"),
    ...taskOptions(),
    ...taskOutputOptions(),
    windowOption(),
    adapterOption(),
    new Option(
      "--prompt-tokens <n>",
      "first tokens of a window that count as its prompt and are not scored (default: 0, or half of the window with a --kv " +
        "policy that looks at a prompt)",
    ).argParser(integer({ min: 0 })),
    new Option(
      "--max-windows <n>",
      "windows at most, from the start of the text (default: 40, all when rolling)",
    ).argParser(integer({ min: 1 })),
    bosOption("in front of each window, of the text when rolling, and of what tasks ask"),
    new Option(
      "--convention <name>",
      "windows: no overlap; rolling: --stride apart; lmEval: as lm-eval rolls (default: windows)",
    ).choices(conventions),
    new Option("--stride <n>", "rolling: tokens from window to window (default: half a window)").argParser(
      integer({ min: 1 }),
    ),
    new Option(
      "--against <model>",
      "model to compare with; 'dense' is MODEL without its thresholds, pattern, policy and exits",
    ),
    prefillOption(
      "which tokens of a window stay dense: dense (all), secondHalf (the first half), or how many",
      { denseFirst: 0 },
      "0: every token is sparse, as in published comparisons",
    ),
    new Option("--experts", "also how many tokens each expert of a mixture gets, and with what weight"),
    ...attentionOptions(),
    sparsityOption(),
    exitsOption(),
    weightsOption(),
    ...residentOptions(),
    expertRanksOption(),
    ...machineOptions(),
    queueOption("let the workers of this queue measure the text, and each argument of --tasks (rarefy worker)"),
  ],
  examples: [
    "rarefy eval tiny-6m --text tiny-6m:eval --weights f32",
    "rarefy eval tiny-6m --text tiny-6m:eval --bos --stride 256 --max-windows 50",
    "rarefy eval tiny-sparse --text tiny-6m:eval --against dense --json",
    "rarefy eval tiny-6m --text tiny-6m:eval --queue redis://127.0.0.1:6379",
  ],
  async run(context, options, [argument]) {
    const others = options.against === undefined ? [] : [options.against];
    const { window, stride, bos, prefill } = options;
    const convention = options.convention ?? (stride === undefined ? "windows" : "rolling");
    if (stride !== undefined && convention !== "rolling")
      throw new UsageError("--stride belongs to --convention rolling");
    const maxWindows = options.maxWindows ?? (convention === "windows" ? 40 : undefined);
    if (options.text === undefined && options.tasks === undefined) throw new UsageError("give --text, --tasks or both");
    // A text or task that is not there is told before the weights are read.
    const files = await resolveModel(argument, context);
    const maxTokens = maxWindows === undefined ? undefined : (maxWindows + 1) * window;
    if (options.queue !== undefined) {
      const { promptTokens } = options;
      const cut = { convention, window, stride, maxWindows, promptTokens, maxTokens };
      const row = await evaluationOverQueue(context, argument, files, options, cut);
      context.print(`${formatResultRows([row])}\n`);
      return row;
    }
    const text = options.text === undefined ? undefined : await readTokens(context, files, options.text, { maxTokens });
    const tasks = await readTaskMeasure(context, files, options, { prefill, bos });
    using comparison = await openComparison(context, [files, ...others], options);
    if (options.against === denseKeyword) checkDiffersFromDense(comparison.variants[0]);
    // The divergence is from the first variant.
    const variants = comparison.variants.toReversed();
    const begin = text && (bos || needsBegin(convention)) ? beginToken(text.tokenizer) : undefined;
    const cut = { convention, window, stride, begin, maxWindows, promptTokens: options.promptTokens };
    const qualities = text && (await evaluateQuality(variants, text, { ...cut, prefill, ...context }));
    const rows: ResultRow[] = [];
    for (const [v, variant] of variants.entries()) {
      const own = v === variants.length - 1;
      const figures = tasks && (await measureTasksInDetail(context, variant, tasks, own ? options : {}));
      const { weights } = variant.model;
      rows.push(resultRow({ ...variant, model: variant.name, weights, quality: qualities?.[v], tasks: figures }));
    }
    context.print(`${formatResultRows(rows)}\n`);
    const [row, against] = rows.toReversed();
    const loads =
      options.experts &&
      text &&
      (await expertLoads(context, comparison.first.model, text.tokens, { window, maxWindows }));
    return { ...row, ...(against && { against }), ...(loads && { experts: loads }) };
  },
};

/** `dense` is the same weights with nothing left out: of a model that leaves nothing out it is the model itself. @throws UsageError */
function checkDiffersFromDense({ name, model, thresholds = model.thresholds, attention, kv, exits }: Variant): void {
  const skips = thresholds !== undefined && thresholds !== "dense";
  if (skips || attention !== undefined || kv !== undefined || exits !== undefined) return;
  throw new UsageError(
    `${name} has no thresholds, attention pattern, cache policy or exits, so dense would be the same again; to see what its weights cost give the model that they were made from: --against MODEL`,
  );
}
