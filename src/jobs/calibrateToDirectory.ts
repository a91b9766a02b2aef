import { basename } from "node:path";
import type { JobOptions } from "../core/index.js";
import { type AllocationComparison, calibrateBetterAllocation, type ResultRow, resultRow } from "../eval/index.js";
import {
  type ActivationSparsity,
  type Artifact,
  artifactFileName,
  artifactVersion,
  fingerprint,
  type LocalModelFiles,
  openCheckpoint,
  serializeArtifact,
  sha256Hex,
} from "../io/index.js";
import { claimOutput, modelDirectoryBuilder } from "../io/index.node.js";
import { isModelFile } from "../io/internal.js";
import type { Model } from "../model/index.js";
import {
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
  type OpenModelOptions,
  openModel,
  toThresholds,
} from "../pipeline/index.js";
import { type Attention, type KvChoice, Sequence } from "../runtime/index.js";
import { measureTasks, type TaskMeasure } from "../tasks/index.js";
import type { TokenizedText } from "../text/index.js";
import { configHash, watchSource } from "./source.js";
import { packageVersion } from "./version.js";

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
  const { force, signal, onProgress } = options;
  await using claimed = await claimOutput(output, { inputs: [source.directory], force });
  const text = await options.text();
  const checkSource = await watchSource(source);
  const owner = { command: "calibrate", job: await jobOf(source, text, options) };
  // The same command gives the same bytes: it may replace what it made.
  claimed.accept(owner);
  let calibrated: CalibratedDirectory | undefined;
  await claimed.build(owner, async (directory) => {
    const builder = modelDirectoryBuilder(directory, { signal, onProgress });
    const machine = { structure: options.structure, device: options.device, threads: options.threads };
    using opened = await openModel(source, { ...machine, weights: options.weights, signal, onProgress });
    const { weights } = opened.model;
    const { records, sites, realisedSparsities, comparisons } = await calibrate(opened.model, text, options);
    const activationSparsity = records[0];
    const inference = await inferenceOf(opened.model, text.tokens, options);
    const results = await measured(opened.model, output, activationSparsity, options);
    const artifact = serializeArtifact({
      rarefy: artifactVersion,
      weights,
      activationSparsity,
      ...(inference && { inference }),
      activations: sites.map((site) => ({ ...site })),
      ...(results && { results: results.map((row) => ({ ...row })) }),
      source: { location: source.location, configSha256: await configHash(source) },
    });
    await builder.takeOver(source, (name) => isModelFile(name) && name !== artifactFileName);
    await builder.add(artifactFileName, artifact);
    await checkSource();
    signal?.throwIfAborted();
    const comparison = comparisons?.[0];
    calibrated = {
      output,
      model: source.location,
      weights,
      ...(inference && { inference }),
      realisedSparsity: realisedSparsities[0],
      ...(comparison && { comparison }),
      ...(results && { results }),
      ...activationSparsity,
    };
  });
  return calibrated!;
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

/** SHA-256 over all that decides the result. */
async function jobOf(
  source: LocalModelFiles,
  text: TokenizedText,
  options: CalibrateToDirectoryOptions,
): Promise<string> {
  const { sparsity, method, estimator, allocation, prefill, window, calibrationWindows, greedyBase } = options;
  const { greedyTokens, seed, weights, device, attention, kv, tasks } = options;
  const checkpoint = await openCheckpoint(source);
  try {
    const what = {
      version: packageVersion(),
      source: await fingerprint(checkpoint, options),
      text: text.sha256,
      what: [sparsity, method, estimator, allocation, prefill, window, calibrationWindows, greedyBase],
      how: [greedyTokens, seed, weights, device],
      ...((attention ?? kv) && { inference: [attention?.text, kv?.text] }),
      ...(tasks && { tasks: [tasks.tasks.map(({ sha256 }) => sha256), tasks.scorer, tasks.resamples] }),
    };
    return await sha256Hex(JSON.stringify(what));
  } finally {
    await checkpoint.close();
  }
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
