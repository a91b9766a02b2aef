import { InvalidArgumentError, Option } from "commander";
import {
  expertMerges,
  expertMethods,
  maskMethods,
  parsePattern,
  pruneMethods,
  type Recipe,
} from "../../compress/index.js";
import { UsageError } from "../../core/index.js";
import { pruneChannelsFromCommand } from "../channelPruning.js";
import type { CommandDefinition } from "../command.js";
import { compressFromCommand } from "../compression.js";
import {
  type CompressionOptions,
  compressionOptions,
  forceOption,
  type MethodOptions,
  methodOptionsOption,
  outputOption,
  recipeOf,
  restartOption,
  selection,
  type TargetOptions,
  targetOptions,
} from "../compressionOptions.js";
import { pruneExpertsFromCommand } from "../expertPruning.js";
import { integer, number } from "../numbers.js";
import { modelArgument } from "../options.js";

interface PruneOptions extends CompressionOptions, TargetOptions, MethodOptions {
  method?: string;
  sparsity?: number;
  pattern?: string;
  scope?: string;
  macs?: number;
  latency?: number;
  experts?: number;
  merge?: string;
  shrink: boolean;
  multipleOf?: number;
  steps?: number;
  output: string;
  restart?: boolean;
  force?: boolean;
}

export const command: CommandDefinition<PruneOptions> = {
  description:
    "Prunes a model block by block; every block is calibrated on the outputs of the pruned blocks before it. OUT becomes a " +
    "complete model directory with a rarefy.json. A run that was killed or stopped goes on when the same command is given " +
    "again, and ends the same to the bit.",
  arguments: [modelArgument],
  options: [
    outputOption(),
    new Option("--method <id>", "how weights, or experts, are chosen (default: sparsegpt, of experts reap)").choices([
      ...new Set([...Object.keys(pruneMethods), ...maskMethods]),
      ...Object.keys(expertMethods),
    ]),
    new Option(
      "--macs <share>",
      "with --method fisher, magnitude or first: multiply-adds of all heads and neurons that stay; which, is searched, and with fisher what stays is tuned",
    ).argParser(number({ min: 0, aboveMin: true, max: 1 })),
    new Option(
      "--latency <share>",
      "with --method fisher: the time of all heads and neurons that stays, as this machine is measured to take it",
    ).argParser(number({ min: 0, aboveMin: true, max: 1 })),
    new Option(
      "--experts <n>",
      `experts to leave out in every layer, by ${Object.keys(expertMethods).join(", ")}`,
    ).argParser(integer({ min: 1, max: 4096 })),
    new Option(
      "--merge <how>",
      "with --experts: fold experts that go into those that stay and are most like them (default: leave them out)",
    ).choices(Object.keys(expertMerges)),
    new Option("--sparsity <share>", "share of zeros; for heads and neurons, of those removed").argParser(
      number({ min: 0, max: 1, belowMax: true }),
    ),
    new Option(
      "--pattern <pattern>",
      "which zeros: unstructured, KEEP:GROUP (2:4), block:RxC, rows, columns, neurons, heads, channels of the residual stream (default: unstructured)",
    ).argParser((text) => {
      if (/^(\d+:\d+|block:\d+x\d+|unstructured|rows|columns|neurons|heads|channels)$/.test(text)) return text;
      throw new InvalidArgumentError(
        "Give KEEP:GROUP, block:RxC, unstructured, rows, columns, neurons, heads or channels.",
      );
    }),
    new Option(
      "--scope <scope>",
      "what competes: a row, a tensor (or block), all of the model (default: the method's)",
    ).choices(["row", "tensor", "global"]),
    new Option("--no-shrink", "neurons and heads: leave zeros instead of making matrices smaller"),
    new Option(
      "--multiple-of <n>",
      "neurons, channels: how many stay is rounded up to a multiple of this (default: 32)",
    ).argParser(integer({ min: 1, max: 1024 })),
    new Option(
      "--steps <n>",
      "channels, neurons, heads: the share grows linearly over so many steps, importances computed anew before each (default: 1)",
    ).argParser(integer({ min: 1, max: 1024 })),
    methodOptionsOption(),
    ...targetOptions(),
    ...compressionOptions(),
    restartOption(),
    forceOption(),
  ],
  examples: [
    "rarefy prune tiny-6m --sparsity 0.5 --calib tiny-6m:calib --text tiny-6m:eval -o tiny-50",
    "rarefy prune tiny-6m --method magnitude --pattern 2:4 -o tiny-24",
    "rarefy prune tiny-6m --method obd --option curvature=gradients --sparsity 0.5 --calib tiny-6m:calib -o tiny-obd",
    "rarefy prune tiny-6m --method llm-pruner --pattern neurons --sparsity 0.2 --calib tiny-6m:calib --window 64 --calibration-windows 10 -o tiny-llm-pruner",
    "rarefy prune tiny-6m --pattern channels --sparsity 0.2 --calib tiny-6m:calib --text tiny-6m:eval -o tiny-narrow",
    "rarefy prune ./classifier --method fisher --macs 0.5 --calib train.tsv --calibration-windows 2048 --window 64 -o smaller",
    "rarefy prune ./trained-with-dynabert --method first --macs 0.5 -o half",
    "rarefy prune ./trained-with-l0 --method zeros -o smaller",
    "rarefy prune ./mixture --experts 2 --method reap --calib calib.txt --text eval.txt -o fewer-experts",
    "rarefy prune tiny-6m --method wanda --pattern neurons --sparsity 0.25 --calib tiny-6m:calib -o tiny-slim",
  ],
  async run(context, options, [model]) {
    const { pattern, sparsity, scope, shrink, multipleOf, steps, option, experts } = options;
    if (experts !== undefined) return pruneExpertsFromCommand(context, model, { ...options, experts });
    if (options.merge !== undefined) throw new UsageError("--merge is of experts; give --experts N");
    if (pattern === "channels") return pruneChannelsFromCommand(context, model, options);
    const { method = "sparsegpt" } = options;
    // Magnitude judges weights, too, where no budget is given.
    const isBudget = options.macs !== undefined || options.latency !== undefined;
    if (maskMethods.includes(method) && (isBudget || !Object.hasOwn(pruneMethods, method))) {
      return compressFromCommand(context, "prune", model, maskRecipe(method, options), options.output, options);
    }
    for (const name of ["macs", "latency"] as const)
      if (options[name] !== undefined) throw new UsageError(`--${name} belongs to --method fisher, magnitude or first`);
    if (!Object.hasOwn(pruneMethods, method))
      throw new UsageError(`--method ${method} chooses experts; give --experts N`);
    if (pattern === undefined && sparsity === undefined)
      throw new UsageError("give --sparsity, or --pattern KEEP:GROUP");
    if (pattern !== undefined && /^\d/.test(pattern) && sparsity !== undefined) {
      throw new UsageError(`--pattern ${pattern} says how much is zero; leave --sparsity out`);
    }
    const parsed = parsePattern(pattern ?? "unstructured", sparsity);
    const recipe = recipeOf({
      type: "prune",
      method,
      pattern: scope === undefined ? parsed : { ...parsed, scope },
      shrink,
      ...(multipleOf !== undefined && { multipleOf }),
      ...(steps !== undefined && { steps }),
      ...(option && { options: option }),
      ...selection(options),
    });
    return compressFromCommand(context, "prune", model, recipe, options.output, options);
  },
};

/** Masks for all heads and neurons under one budget. */
function maskRecipe(method: string, options: PruneOptions): Recipe {
  const { macs, latency, shrink, multipleOf, option } = options;
  const other = (["sparsity", "pattern", "scope", "steps"] as const).find((name) => options[name] !== undefined);
  if (other !== undefined)
    throw new UsageError(`--${other} has no meaning for --method ${method}; give --macs or --latency`);
  if (method === "zeros" && (macs !== undefined || latency !== undefined))
    throw new UsageError("what is zero goes, whatever it costs; leave --macs and --latency out");
  if (method !== "zeros" && (macs === undefined) === (latency === undefined))
    throw new UsageError("give either --macs or --latency");
  return recipeOf({
    ...option,
    type: "maskUnits",
    method,
    ...(macs !== undefined && { macs }),
    ...(latency !== undefined && { latency }),
    shrink,
    ...(multipleOf !== undefined && { multipleOf }),
    ...selection(options),
  });
}
