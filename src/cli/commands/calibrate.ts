import { Option } from "commander";
import { allocations, thresholdEstimators } from "../../compress/index.js";
import { type AllocationComparison, formatResultRows } from "../../eval/index.js";
import { readText, resolveModel } from "../../io/index.node.js";
import { type CalibratedDirectory, calibrateToDirectory } from "../../jobs/index.js";
import { activationMethods, type CalibrationOptions } from "../../pipeline/index.js";
import { calibrationText } from "../calibrationTokens.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption } from "../compressionOptions.js";
import { digits, percent, table } from "../format.js";
import { integer, number } from "../numbers.js";
import {
  type AttentionOptions,
  attentionOptions,
  bosOption,
  calibrationWindowsOption,
  type MachineOptions,
  machineOptions,
  modelArgument,
  prefillOption,
  seedOption,
  textOption,
  type WeightsOption,
  weightsOption,
  windowOption,
} from "../options.js";
import { readTaskMeasure, type TaskCommandOptions, taskOptions } from "../taskOptions.js";

type Settings = Pick<CalibrationOptions, "method" | "estimator" | "allocation" | "prefill">;

interface CalibrateOptions
  extends CommonOptions,
    MachineOptions,
    WeightsOption,
    AttentionOptions,
    TaskCommandOptions,
    Required<Settings> {
  text: string;
  sparsity: number;
  window: number;
  calibrationWindows: number;
  bos?: boolean;
  greedyStep: number;
  greedyTokens: number;
  seed: number;
  output: string;
  force?: boolean;
}

export const command: CommandDefinition<CalibrateOptions> = {
  description:
    "Runs the dense model over windows of a text and chooses, for the input of every linear map, the threshold below which " +
    "values count as zero. OUT becomes a complete model directory: the same weights, linked or copied, and a rarefy.json with " +
    "the thresholds. run, eval and bench use it with no flags; other tools load it as the dense model it also is. --attention and " +
    "--kv are stored with them, and used likewise; heads that minference looks for are found on the text.",
  arguments: [modelArgument],
  options: [
    new Option("-o, --output <dir>", "directory to write").makeOptionMandatory(),
    textOption("to calibrate on, like what the model will read").makeOptionMandatory(),
    new Option("--sparsity <share>", "share of zeros over the inputs of all linear maps, weighted by their size")
      .argParser(number({ min: 0, max: 1, belowMax: true }))
      .default(0.5),
    new Option("--method <id>", "teal: inputs of all linear maps; cats: the gate of the MLP, for comparison")
      .choices(Object.keys(activationMethods))
      .default("teal"),
    new Option(
      "--allocation <id>",
      "uniform: the same share everywhere; greedy: where it hurts least, which takes longer, unless uniform then predicts the text better",
    )
      .choices(Object.keys(allocations))
      .default("uniform"),
    new Option("--estimator <id>", "absQuantile: exact shares; symmetric: as in the published code")
      .choices(Object.keys(thresholdEstimators))
      .default("absQuantile"),
    prefillOption(
      "which tokens of a prompt stay dense: dense (all), secondHalf (the first half), or how many",
      "dense",
      "dense",
    ),
    windowOption(),
    calibrationWindowsOption(),
    bosOption("in front of each window"),
    new Option("--greedy-step <share>", "greedy: rise in one move of a linear map with hiddenSize² weights")
      .argParser(number({ min: 0.001, max: 1 }))
      .default(0.05),
    new Option("--greedy-tokens <n>", "greedy: calibration tokens that moves are judged on; time grows with them")
      .argParser(integer({ min: 4 }))
      .default(512),
    seedOption("draws the windows that the greedy allocation judges by").default(0),
    ...attentionOptions(),
    ...taskOptions(),
    weightsOption(),
    ...machineOptions(),
    forceOption(),
  ],
  examples: [
    "rarefy calibrate tiny-6m --text tiny-6m:calib --sparsity 0.4 --allocation greedy -o tiny-sparse",
    "rarefy calibrate tiny-6m --text tiny-6m:calib --weights q8 -o tiny-q8-sparse",
    "rarefy calibrate tiny-6m --text tiny-6m:calib --sparsity 0 --attention minference:budget=256 --kv int8 -o tiny-lean",
  ],
  async run(context, options, [argument]) {
    const { signal, onProgress } = context;
    const { text: path, output, bos, greedyStep, json: _json, quiet: _quiet, verbose: _verbose, ...settings } = options;
    const text = await readText(path);
    const source = await resolveModel(argument, context);
    const tasks = await readTaskMeasure(context, source, options, { prefill: options.prefill });
    const calibrated = await calibrateToDirectory(source, output, {
      ...settings,
      tasks,
      greedyBase: greedyStep,
      text: () => calibrationText(context, source, { text, name: path }, { ...settings, bos }),
      signal,
      onProgress,
    });
    context.print(render(calibrated));
    if (calibrated.results !== undefined) context.print(`\n${formatResultRows(calibrated.results)}\n`);
    return calibrated;
  },
};

function render({
  output,
  method,
  sparsity,
  realisedSparsity,
  comparison,
  layers,
  calibration,
}: CalibratedDirectory): string {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const range = (values: readonly number[]) => `${digits(Math.min(...values), 2)} … ${digits(Math.max(...values), 2)}`;
  const byRole = [...new Set(layers.flatMap(({ maps }) => Object.keys(maps)))].map((name) => ({
    name,
    cuts: layers.flatMap(({ maps }) => maps[name] ?? []),
  }));
  const gates = { name: "activated gate", cuts: layers.flatMap(({ gate }) => gate ?? []) };
  const rows = [...byRole, ...(gates.cuts.length > 0 ? [gates] : [])].map(({ name, cuts }) => ({
    name,
    sparsity: mean(cuts.map((cut) => cut.sparsity)),
    sparsities: cuts.map((cut) => cut.sparsity),
    thresholds: cuts.map((cut) => cut.threshold),
  }));
  const lines = [
    table(
      [
        { title: "zeros in front of", cell: (row: (typeof rows)[number]) => row.name, align: "left" },
        { title: "mean", cell: (row) => percent(row.sparsity, 1) },
        { title: "over layers", cell: (row) => range(row.sparsities) },
        { title: "thresholds", cell: (row) => range(row.thresholds) },
      ],
      rows,
    ),
    "",
    `${method} at ${percent(sparsity)}: ${percent(realisedSparsity, 1)} of the blocks' weights skipped on the calibration text ` +
      `(${calibration.windows} windows of ${calibration.window} tokens).`,
    ...(comparison ? [renderComparison(comparison)] : []),
    `Wrote ${output}. What it costs: rarefy eval ${output} --text FILE --against dense`,
  ];
  return `${lines.join("\n")}\n`;
}

function renderComparison({ kept, perplexity }: AllocationComparison): string {
  const [greedy, uniform] = [perplexity.greedy, perplexity.uniform].map((value) => digits(value, 2));
  return `Perplexity on the calibration text: ${greedy} with greedy allocation, ${uniform} with uniform; kept ${kept}.`;
}
