import { basename } from "node:path";
import type { JobOptions } from "../core/index.js";
import { type AllocationComparison, calibrateBetterAllocation, type ResultRow, resultRow } from "../eval/index.js";
import {
  type ActivationSparsity,
  type Artifact,
  artifactFileName,
  type LocalModelFiles,
  serializeArtifact,
} from "../io/index.js";
import { isModelFile } from "../io/internal.js";
import type { Model } from "../model/index.js";
import {
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
  calibratedArtifact,
  type OpenModelOptions,
  openModel,
  toThresholds,
} from "../pipeline/index.js";
import { type Attention, type KvChoice, Sequence } from "../runtime/index.js";
import { measureTasks, type TaskMeasure } from "../tasks/index.js";
import type { TokenizedText } from "../text/index.js";
import { writeBesideWeights } from "./besideWeights.js";
import { configHash } from "./source.js";

/** How to open the model, and how its thresholds are found. */
export interface CalibrateToDirectoryOptions
  extends Omit<OpenModelOptions, keyof JobOptions>,
    Omit<CalibrationOptions, "sparsities"> {
  /** Requested share of zeros, in [0, 1). */
  sparsity: number;
  /** What the result is to see and hold, stored as it is written. Heads that MInference looks for are found on the text. */
  attention?: Attention;
  kv?: KvChoice;
  /** Replace the finished result of something else. */
  force?: boolean;
  /** Tasks to measure the model by, dense and with its thresholds; default: none. */
  tasks?: TaskMeasure;
  /** Text to calibrate on; asked for once everything that is cheap to check is right. */
  text(): Promise<TokenizedText>;
}

/** What calibration came to; all but the first four fields is also in the result's rarefy.json. */
export interface CalibratedDirectory extends ActivationSparsity {
  output: string;
  model: string;
  /** Packed format that the thresholds belong to. */
  weights: string;
  /** What it sees and holds, as it is stored. */
  inference?: Artifact["inference"];
  /** Share of the blocks' weights whose inputs are dropped on the calibration text. */
  realisedSparsity: number;
  /** Of the greedy allocation with the uniform one, when it was asked for. */
  comparison?: AllocationComparison;
  /** Of the dense model and the result, with `tasks`. */
  results?: ResultRow[];
}

/**
 * Finds the thresholds of a model for activation sparsity, and writes a model directory that has them: the same weights, linked
 * or copied, and a rarefy.json. It appears whole or not at all.
 * @throws UsageError, BusyError, StorageError before the weights are read; what `openModel` and
 * `calibrateActivationSparsity` throw
 */
export async function calibrateToDirectory(
  source: LocalModelFiles,
  output: string,
  options: CalibrateToDirectoryOptions,
): Promise<CalibratedDirectory> {
  const { force, text: textOf, signal, onProgress } = options;
  const job = { command: "calibrate", force, text: textOf, settings: settingsOf(options), signal, onProgress };
  return writeBesideWeights(source, output, job, async (builder, text) => {
    const machine = { structure: options.structure, device: options.device, threads: options.threads };
    using opened = await openModel(source, { ...machine, weights: options.weights, signal, onProgress });
    const calibration = await calibrate(opened.model, text, options);
    const { records, realisedSparsities, comparisons } = calibration;
    const results = await measured(opened.model, output, records[0], options);
    const artifact = calibratedArtifact(opened, calibration, {
      configSha256: await configHash(source),
      inference: await inferenceOf(opened.model, text.tokens, options),
      results,
    });
    const { inference } = artifact;
    await builder.takeOver(source, (name) => isModelFile(name) && name !== artifactFileName);
    await builder.add(artifactFileName, serializeArtifact(artifact));
    const comparison = comparisons?.[0];
    return {
      output,
      model: source.location,
      weights: opened.model.weights,
      ...(inference && { inference }),
      realisedSparsity: realisedSparsities[0],
      ...(comparison && { comparison }),
      ...(results && { results }),
      ...records[0],
    };
  });
}

/** The dense model and that with thresholds, pattern and policy, by tasks. */
async function measured(
  model: Model,
  output: string,
  record: ActivationSparsity,
  { tasks, attention, kv, signal, onProgress }: CalibrateToDirectoryOptions,
): Promise<ResultRow[] | undefined> {
  if (tasks === undefined) return undefined;
  const backend = model.backend.info.id;
  const rows: ResultRow[] = [];
  for (const variant of [
    { name: "dense", model },
    { name: basename(output), model, thresholds: toThresholds(record), attention, kv },
  ]) {
    const figures = await measureTasks(variant, tasks, { signal, onProgress });
    rows.push(resultRow({ ...variant, model: variant.name, weights: model.weights, tasks: figures, backend }));
  }
  return rows;
}

/** How the result attends; heads that a pattern looks for are found on a prompt as long as the model takes it. */
async function inferenceOf(
  model: Model,
  tokens: Uint32Array,
  { attention, kv, signal }: CalibrateToDirectoryOptions,
): Promise<Artifact["inference"]> {
  if (attention === undefined && kv === undefined) return undefined;
  const found = { attention: attention?.text, kv: kv?.text };
  if (attention?.seek !== undefined) {
    const prompt = tokens.subarray(0, Math.min(tokens.length, model.config.maxPositions));
    using sequence = new Sequence(model, prompt.length, { attention });
    model.backend.release(await sequence.run(prompt, { signal }));
    found.attention = sequence.attention;
  }
  return { ...(found.attention && { attention: found.attention }), ...(found.kv && { kv: found.kv }) };
}

/** All that decides the result beside model and text. */
function settingsOf(options: CalibrateToDirectoryOptions): object {
  const { sparsity, method, estimator, allocation, prefill, window, calibrationWindows, greedyBase } = options;
  const { greedyTokens, seed, weights, device, attention, kv, tasks } = options;
  return {
    what: [sparsity, method, estimator, allocation, prefill, window, calibrationWindows, greedyBase],
    how: [greedyTokens, seed, weights, device],
    ...((attention ?? kv) && { inference: [attention?.text, kv?.text] }),
    ...(tasks && { tasks: [tasks.tasks.map(({ sha256 }) => sha256), tasks.scorer, tasks.resamples] }),
  };
}

function calibrate(
  model: Model,
  text: TokenizedText,
  { sparsity, allocation, ...rest }: CalibrateToDirectoryOptions,
): Promise<Calibration & { comparisons?: AllocationComparison[] }> {
  const settings = { ...rest, sparsities: [sparsity] };
  return allocation === "greedy"
    ? calibrateBetterAllocation(model, text, settings)
    : calibrateActivationSparsity(model, text, { ...settings, allocation });
}
