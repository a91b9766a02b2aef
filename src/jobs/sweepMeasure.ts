import { basename, join } from "node:path";
import { densityStored, evaluateQuality, type ResultRow, resultRow } from "../eval/index.js";
import {
  type Checkpoint,
  compressionOf,
  type Fingerprint,
  fingerprint,
  type LocalModelFiles,
  readArtifact,
  sha256Hex,
} from "../io/index.js";
import { directoryFiles, removeOutput } from "../io/index.node.js";
import type { WeightFormatId } from "../pack/index.js";
import { openModel } from "../pipeline/index.js";
import { measureTasks, type TaskMeasure } from "../tasks/index.js";
import type { TokenizedText } from "../text/index.js";
import { type CompressDirectoryOptions, compressToDirectory } from "./compressToDirectory.js";
import { weightBytesOf } from "./measures.js";
import type { SweepCandidate } from "./sweepCandidates.js";
import type { SweepEntry } from "./sweepEntries.js";
import type { SweepWorkers } from "./sweepWorkers.js";
import { packageVersion } from "./version.js";

/** What all candidates of a sweep are made and measured with. */
export interface SweepOptions
  extends Pick<
    CompressDirectoryOptions,
    "calibration" | "store" | "dtype" | "device" | "threads" | "signal" | "onProgress"
  > {
  candidates: readonly SweepCandidate[];
  /** Every model is measured on it. */
  evaluation: TokenizedText;
  /** Tokens of an evaluation window. Default 512. */
  window?: number;
  /** Windows of `evaluation` at most. */
  maxWindows: number;
  /** Tasks by which every model is measured too. */
  tasks?: TaskMeasure;
  /** Format of the weights in memory when models are measured. Default: what their rarefy.json names, else bf16. */
  weights?: WeightFormatId;
  /** Leave the models, each in a directory of its own. */
  keep?: boolean;
  /** Replace what was measured with other settings, texts or weights. Default: refuse. */
  force?: boolean;
  /** In the end, time source and candidates in turn, so many rounds. Default: no times. */
  speedRepeats?: number;
  /** Make and measure candidates elsewhere: without `tasks`, `keep` and `speedRepeats`. Default: here, one after the other. */
  workers?: SweepWorkers;
  /** Told what begins here: the name of a candidate, "source", "speed". */
  onCandidate?(name: string): void;
}

/** What tells the source of a sweep from another model. */
export interface SourceIdentity extends Fingerprint {
  /** Of what rarefy.json says; null without one. */
  artifactSha256: string | null;
}

/** A sweep under way: what its candidates are made of, and where. */
export interface Sweep {
  source: LocalModelFiles;
  output: string;
  identity: SourceIdentity;
  options: SweepOptions;
}

/** Reads every weight once. */
export async function identityOf(
  checkpoint: Checkpoint,
  { signal, onProgress }: Pick<SweepOptions, "signal" | "onProgress">,
): Promise<SourceIdentity> {
  const artifact = await readArtifact(checkpoint);
  return {
    ...(await fingerprint(checkpoint, { signal, onProgress })),
    artifactSha256: artifact === undefined ? null : await sha256Hex(JSON.stringify(artifact)),
  };
}

/** Removes the model of a candidate. */
export const removed = ({ output }: Sweep, name: string) => removeOutput(join(output, name));

/**
 * SHA-256 over all that decides the entry of a candidate, or of the source, wherever its files lie: so the same work is known on
 * another machine.
 */
export async function keyOf(
  { source, identity, options }: Sweep,
  candidate: SweepCandidate | undefined,
): Promise<string> {
  const { evaluation, calibration, tasks, window, maxWindows, weights, store, dtype, device } = options;
  const what = {
    version: packageVersion(),
    // The row of the source has its name; a candidate has its own.
    model: candidate === undefined ? [basename(source.location), identity] : identity,
    recipe: candidate?.recipe ?? null,
    text: evaluation.sha256,
    calibration: calibration === undefined ? null : calibration.sha256 + (calibration.windowsBegin ? " bos" : ""),
    how: [window, maxWindows, weights, store, dtype, device],
    ...(tasks && { tasks: [tasks.tasks.map(({ sha256 }) => sha256), tasks.scorer, tasks.resamples] }),
  };
  return sha256Hex(JSON.stringify(what));
}

/** Measures the source. */
export async function sourceEntry(sweep: Sweep, key: string): Promise<SweepEntry> {
  const { source } = sweep;
  const row = await measure(sweep, source, basename(source.location));
  return { key, name: row.model, row: { ...row, bytesOnDisk: await weightBytesOf(source) } };
}

/** Makes the model of a candidate, measures it, and removes it unless it is wanted. */
export async function candidateEntry(sweep: Sweep, candidate: SweepCandidate, key: string): Promise<SweepEntry> {
  const { name } = candidate;
  const { keep, speedRepeats } = sweep.options;
  const startMs = performance.now();
  const files = await compressed(sweep, candidate);
  const elapsedMs = Math.round(performance.now() - startMs);
  const artifact = (await readArtifact({ files, location: files.location }))!;
  const row: ResultRow = {
    ...(await measure(sweep, files, name)),
    densityStored: densityStored(artifact),
    bytesOnDisk: await weightBytesOf(files),
    elapsedMs,
  };
  if (keep !== true && speedRepeats === undefined) await removed(sweep, name);
  const { recipe, layers } = compressionOf(artifact)!;
  return { key, name, row, recipe, layers };
}

/** The model of a candidate, made unless it is there. */
export async function compressed(
  { source, output, options }: Sweep,
  { name, recipe }: SweepCandidate,
): Promise<LocalModelFiles> {
  const { calibration, store, dtype, device, threads, force, signal, onProgress } = options;
  const directory = join(output, name);
  await compressToDirectory(source, directory, {
    recipe,
    calibration,
    store,
    dtype,
    device,
    threads,
    force,
    signal,
    onProgress,
  });
  return directoryFiles(directory);
}

async function measure({ options }: Sweep, files: LocalModelFiles, name: string): Promise<ResultRow> {
  const { evaluation, tasks, device, threads, weights, maxWindows, window = 512, signal, onProgress } = options;
  using opened = await openModel(files, { weights, device, threads, signal, onProgress });
  const { model } = opened;
  const [quality] = await evaluateQuality([{ name, model }], evaluation, { window, maxWindows, signal, onProgress });
  const figures =
    tasks && (await measureTasks({ name, model, thresholds: model.thresholds }, tasks, { signal, onProgress }));
  return resultRow({ model: name, weights: model.weights, quality, tasks: figures, backend: model.backend.info.id });
}
