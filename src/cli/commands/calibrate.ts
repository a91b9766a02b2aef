import { Option } from "commander";
import { allocations, thresholdEstimators } from "../../compress/index.js";
import { type AllocationComparison, calibrateBetterAllocation } from "../../eval/index.js";
import { type Artifact, artifactFileName, isModelFile, serializeArtifact, sha256Hex } from "../../io/index.js";
import { buildModelDirectory, resolveModel } from "../../io/index.node.js";
import { projections } from "../../model/index.js";
import {
  activationMethods,
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
} from "../../pipeline/index.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { digits, percent, table } from "../format.js";
import { integer, number } from "../numbers.js";
import {
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
import { openSession, readTokens } from "../session.js";

type Settings = Pick<CalibrationOptions, "method" | "estimator" | "allocation" | "prefill">;

interface CalibrateOptions extends CommonOptions, MachineOptions, WeightsOption, Required<Settings> {
  text: string;
  sparsity: number;
  window: number;
  calibrationWindows: number;
  greedyStep: number;
  greedyTokens: number;
  seed: number;
  output: string;
}

export const calibrateCommand: CommandDefinition<CalibrateOptions> = {
  name: "calibrate",
  summary: "make a model activation-sparse: find its thresholds on a text, write a model directory",
  description:
    "Runs the dense model over windows of a text and chooses, for the input of every linear map, the threshold below which " +
    "values count as zero. OUT becomes a complete model directory: the same weights, linked or copied, and a rarefy.json with " +
    "the thresholds. run, eval and bench use it with no flags; other tools load it as the dense model it also is.",
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
    new Option("--greedy-step <share>", "greedy: rise in one move of a linear map with hiddenSize² weights")
      .argParser(number({ min: 0.001, max: 1 }))
      .default(0.05),
    new Option("--greedy-tokens <n>", "greedy: calibration tokens that moves are judged on; time grows with them")
      .argParser(integer({ min: 4 }))
      .default(512),
    seedOption("draws the windows that the greedy allocation judges by").default(0),
    weightsOption(),
    ...machineOptions(),
  ],
  examples: [
    "rarefy calibrate models/tiny-6m --text models/text/calib.txt --sparsity 0.4 --allocation greedy -o tiny-sparse",
    "rarefy calibrate models/tiny-6m --text models/text/calib.txt --weights q8 -o tiny-q8-sparse",
  ],
  async run(context, options, [argument]) {
    const source = await resolveModel(argument, context);
    let document: CalibrateDocument | undefined;
    await buildModelDirectory(
      options.output,
      [source.directory],
      async (builder) => {
        const { artifact, realisedSparsity, comparison } = await calibrated(context, options, argument);
        await builder.takeOver(source, (name) => isModelFile(name) && name !== artifactFileName);
        await builder.add(artifactFileName, serializeArtifact(artifact));
        const { layers, ...settings } = artifact.activationSparsity!;
        document = {
          output: options.output,
          model: source.location,
          weights: artifact.weights!,
          realisedSparsity,
          ...(comparison && { comparison }),
          ...settings,
          layers,
        };
      },
      context,
    );
    context.print(render(document!));
    return document!;
  },
};

type Sparsity = NonNullable<Artifact["activationSparsity"]>;
interface CalibrateDocument extends Sparsity {
  output: string;
  model: string;
  weights: string;
  /** Share of the blocks' weights whose inputs are dropped on the calibration text. */
  realisedSparsity: number;
  /** Of the greedy allocation with the uniform one, when it was asked for. */
  comparison?: AllocationComparison;
}

async function calibrated(
  context: Context,
  options: CalibrateOptions,
  argument: string,
): Promise<{ artifact: Artifact; realisedSparsity: number; comparison?: AllocationComparison }> {
  using session = await openSession(context, argument, options);
  const text = await readTokens(session, options.text);
  const { sparsity, method, estimator, allocation, prefill, window, calibrationWindows, greedyTokens, seed } = options;
  const settings = {
    sparsities: [sparsity],
    method,
    estimator,
    prefill,
    window,
    calibrationWindows,
    greedyBase: options.greedyStep,
    greedyTokens,
    seed,
    ...context,
  };
  const calibration: Calibration & { comparisons?: AllocationComparison[] } =
    allocation === "greedy"
      ? await calibrateBetterAllocation(session.model, text, settings)
      : await calibrateActivationSparsity(session.model, text, { ...settings, allocation });
  const config = (await session.files.open("config.json"))!;
  const configSha256 = await sha256Hex(await config.read(0, config.byteLength));
  await config.close();
  return {
    artifact: {
      rarefy: 1,
      weights: session.model.weights,
      activationSparsity: calibration.records[0],
      activations: calibration.sites.map((sites) => ({ ...sites })),
      source: { location: session.location, configSha256 },
    },
    realisedSparsity: calibration.realisedSparsities[0],
    comparison: calibration.comparisons?.[0],
  };
}

function render({
  output,
  method,
  sparsity,
  realisedSparsity,
  comparison,
  layers,
  calibration,
}: CalibrateDocument): string {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const range = (values: readonly number[]) => `${digits(Math.min(...values), 2)} … ${digits(Math.max(...values), 2)}`;
  const cutsOf = {
    teal: projections.map((name) => ({ name: name as string, cuts: layers.map((layer) => layer.projections[name]) })),
    cats: [{ name: "activated gate", cuts: layers.map((layer) => layer.gate!) }],
  };
  const rows = cutsOf[method].map(({ name, cuts }) => ({
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
