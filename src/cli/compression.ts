import type { Recipe } from "../compress/index.js";
import { formatResultRows, type ResultRow } from "../eval/index.js";
import { type Artifact, type Compression, compressionOf } from "../io/index.js";
import { checkOutput, readText, resolveModel } from "../io/index.node.js";
import { compressAndMeasure, type MeasuredCompression, rareExperts } from "../jobs/index.js";
import type { JobTimes } from "../pipeline/index.js";
import { tokenizeText } from "../text/index.js";
import { calibrationTokens } from "./calibrationTokens.js";
import type { Context } from "./command.js";
import { type CompressionOptions, withCalibration } from "./compressionOptions.js";
import { bytes, duration, percent } from "./format.js";
import { isLabelled, labelledTokens } from "./labelledTokens.js";
import { readTaskMeasure } from "./taskOptions.js";
import { openTokenizer } from "./tokenizer.js";

/** What --json prints: the row of the result, and how it came about. */
export interface CompressionDocument extends ResultRow {
  output: string;
  /** What ran the calibration windows, in words; undefined where nothing was measured. */
  calibratedBy?: string;
  /** Of the source, measured in the same run. */
  before?: ResultRow;
  /** Blocks that an earlier run had finished. */
  resumedBlocks: number;
  timesMs: JobTimes;
  estimate: MeasuredCompression["plan"]["estimate"];
  layers: Compression["layers"];
  /** What masks of heads and neurons came to. */
  unitMasks?: Compression["unitMasks"];
}

/** Runs one job from the command line: plan, compress, evaluate before and after. Prints as it goes. */
export async function compressFromCommand(
  context: Context,
  command: string,
  model: string,
  givenRecipe: Recipe,
  output: string,
  options: CompressionOptions & { restart?: boolean; force?: boolean },
): Promise<CompressionDocument> {
  const { signal, onProgress } = context;
  // A text that is not there is told before a model is downloaded.
  const [calibration, evaluation] = [await maybeText(options.calib), await maybeText(options.text)];
  const source = await resolveModel(model, { signal, onProgress });
  await checkOutput(output, [source.directory]);
  const recipe = withCalibration(givenRecipe, options);
  const { store, dtype, device, threads, restart, force, maxWindows } = options;
  const { calib, text: evaluated, bos } = options;
  const { calibration: windows } = recipe;
  const calibrationOf = async () => {
    if (calibration === undefined) return {};
    if (isLabelled(calibration)) {
      const labelled = { text: calibration, name: calib!, most: windows.window, bos };
      return { labelled: await labelledTokens(context, source, labelled) };
    }
    return { calibration: await calibrationTokens(context, source, { text: calibration, name: calib, windows, bos }) };
  };
  const tasks = await readTaskMeasure(context, source, options);
  const result = await compressAndMeasure(source, output, {
    command,
    recipe,
    ...(await calibrationOf()),
    evaluation:
      evaluation === undefined
        ? undefined
        : await tokenizeText(await openTokenizer(context, source), evaluation, {
            maxTokens: windows.window * maxWindows,
            name: evaluated,
            signal,
            onProgress,
          }),
    maxWindows,
    tasks,
    store,
    dtype,
    device,
    threads,
    restart,
    force,
    signal,
    onProgress,
    onPlan: ({ estimate, layers, backend }) =>
      context.print(
        `${layers} blocks${backend === undefined ? "" : `, calibrated by ${backend.description}`}: about ${duration(estimate.elapsedMs)}, ${bytes(estimate.memoryBytes)} of memory, ` +
          `at most ${bytes(estimate.diskBytes)} on disk.\n`,
      ),
  });
  if (result.wasThere) context.print(`${output} is there already, made by the same command.\n`);
  const { before, after, plan, artifact } = result;
  const { unitMasks } = compressionOf(artifact)!;
  context.print(`${formatResultRows(before === undefined ? [after] : [before, after])}\n\n${summary(output, result)}`);
  return {
    ...after,
    output,
    calibratedBy: plan.backend?.description,
    ...(before && { before }),
    resumedBlocks: result.resumedBlocks,
    timesMs: result.elapsedMs,
    estimate: plan.estimate,
    layers: compressionOf(artifact)!.layers,
    ...(unitMasks && { unitMasks }),
  };
}

const maybeText = async (path: string | undefined) => (path === undefined ? undefined : readText(path));

function rarelyChosen(artifact: Artifact): string[] {
  const experts = rareExperts(artifact);
  if (experts.length === 0) return [];
  const listed = experts.slice(0, 4).map(({ expert, tokens }) => `${expert} (${tokens})`);
  return [
    `Experts that saw fewer calibration tokens than they have inputs: ${experts.length}, as layer.expert (tokens) ${listed.join(", ")}${experts.length > 4 ? " …" : ""}. More windows would serve them better.`,
  ];
}

function masksInWords(artifact: Artifact): string[] {
  const masks = compressionOf(artifact)?.unitMasks;
  if (masks === undefined) return [];
  const { macsShare, heads, neurons, tuned } = masks;
  return [
    `${percent(macsShare, 2)} of the multiply-adds of heads and neurons. Heads by layer: ${heads.join(" ")}; neurons: ${neurons.join(" ")}. ${tuned.length} layers tuned.`,
  ];
}

function summary(output: string, { elapsedMs, resumedBlocks, plan, artifact, after }: MeasuredCompression): string {
  const parts = Object.entries(elapsedMs)
    .filter(([, ms]) => ms >= 50)
    .map(([part, ms]) => `${part} ${(ms / 1000).toFixed(1)} s`);
  const resumed = resumedBlocks > 0 ? `, ${resumedBlocks} of ${plan.layers} blocks taken over from an earlier run` : "";
  return [
    `${(after.elapsedMs! / 1000).toFixed(1)} s (${parts.join(", ")})${resumed}; peak ${bytes(after.peakMemoryBytes!)}.`,
    `${percent(after.densityStored!, 1)} of the numbers, ${bytes(after.bytesOnDisk!)} in ${output}`,
    ...rarelyChosen(artifact),
    ...masksInWords(artifact),
    "",
  ].join("\n");
}
