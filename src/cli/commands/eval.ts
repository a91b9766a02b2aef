import { Option } from "commander";
import { evaluateQuality, formatResultRows, resultRow } from "../../eval/index.js";
import type { PrefillPolicy } from "../../runtime/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import {
  type MachineOptions,
  machineOptions,
  maxWindowsOption,
  modelArgument,
  prefillOption,
  textOption,
  type WeightsOption,
  weightsOption,
  windowOption,
} from "../options.js";
import { openComparison, readTokens } from "../session.js";

interface EvalOptions extends CommonOptions, MachineOptions, WeightsOption {
  text: string;
  window: number;
  maxWindows: number;
  against?: string;
  prefill: PrefillPolicy;
}

export const evalCommand: CommandDefinition<EvalOptions> = {
  name: "eval",
  summary: "perplexity of a model on a text, and how far it lies from another",
  description:
    "Perplexity over windows of the text: no overlap, no begin-of-text token, mean over all predicted tokens. With --against " +
    "both models see the same windows in one run, and the divergence from the other one is measured too.",
  arguments: [modelArgument],
  options: [
    textOption("to evaluate on").makeOptionMandatory(),
    windowOption(),
    maxWindowsOption(40),
    new Option("--against <model>", "model to compare with; 'dense' is MODEL without its thresholds"),
    prefillOption(
      "which tokens of a window stay dense: dense (all), secondHalf (the first half), or how many",
      { denseFirst: 0 },
      "0: every token is sparse, as in published comparisons",
    ),
    weightsOption(),
    ...machineOptions(),
  ],
  examples: [
    "rarefy eval models/tiny-6m --text models/text/books-eval.txt --weights f32",
    "rarefy eval tiny-sparse --text models/text/books-eval.txt --against dense --json",
  ],
  async run(context, options, [argument]) {
    const others = options.against === undefined ? [] : [options.against];
    using comparison = await openComparison(context, [argument, ...others], options);
    const text = await readTokens(comparison.first, options.text);
    // The divergence is from the first variant.
    const variants = comparison.variants.toReversed();
    const { window, maxWindows, prefill } = options;
    const qualities = await evaluateQuality(variants, text, {
      window,
      maxWindows,
      prefill,
      ...context,
    });
    const rows = qualities.map((quality, v) =>
      resultRow({ model: quality.name, weights: variants[v].model.weights, quality }),
    );
    context.print(`${formatResultRows(rows)}\n`);
    const [row, against] = rows.toReversed();
    return { ...row, ...(against && { against }) };
  },
};
