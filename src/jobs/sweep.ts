import { basename, join, resolve } from "node:path";
import { ProblemsError, RarefyError, UsageError } from "../core/index.js";
import { evaluateQuality, measureSpeedInTurn, type ResultRow, resultRow } from "../eval/index.js";
import {
  compressionOf,
  type Fingerprint,
  fingerprint,
  type LocalModelFiles,
  openCheckpoint,
  readArtifact,
  sha256Hex,
} from "../io/index.js";
import { directoryFiles, JobDirectory, lockPath, removeOutput } from "../io/index.node.js";
import type { WeightFormatId } from "../pack/index.js";
import { openModel } from "../pipeline/index.js";
import { checkCompression } from "../pipeline/internal.js";
import { measureTasks, type TaskMeasure } from "../tasks/index.js";
import type { TokenizedText } from "../text/index.js";
import { gradientSource } from "../train/index.js";
import { type CompressDirectoryOptions, compressToDirectory } from "./compressToDirectory.js";
import { type Machine, machine } from "./machine.js";
import { densityStored, weightBytesOf } from "./measures.js";
import type { SweepCandidate } from "./sweepCandidates.js";
import { readEntry, type StoredEntry, type SweepEntry, writeJsonFile } from "./sweepEntries.js";
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
  /** Told what begins: the name of a candidate, "source", "speed". */
  onCandidate?(name: string): void;
}

/** What a sweep wrote to `sweep.json`; the first entry is the source. */
export interface SweepDocument {
  rarefySweep: 1;
  model: string;
  output: string;
  machine: Machine;
  entries: SweepEntry[];
}

interface Sweep {
  source: LocalModelFiles;
  output: string;
  identity: Fingerprint;
  options: SweepOptions;
}

/**
 * Makes and measures candidates of compression alike, one after the other. `output` gets a file for each and, in the end, a
 * sweep.json with all. What is finished is not done again: killed or stopped, the same call goes on in the middle of a
 * candidate. Only times are taken anew, of all together, when a candidate joins.
 * @throws ProblemsError with what stands in the way of any candidate, UsageError, BusyError, StorageError before the first; when
 * stopped, RarefyError that says how to go on
 */
export async function runSweep(source: LocalModelFiles, output: string, options: SweepOptions): Promise<SweepDocument> {
  const { candidates, signal } = options;
  await using _lock = await lockPath(resolve(output));
  // Other files in it stay as they are: only those of the sweep's own names are written.
  const directory = new JobDirectory(resolve(output), "sweep", () => true);
  await directory.check();
  const sweep: Sweep = { source, output, options, identity: await checked(source, options) };
  await refuseOthers(sweep);
  await directory.open();
  const stored: StoredEntry[] = [];
  let entries: SweepEntry[];
  try {
    for (const candidate of [undefined, ...candidates]) stored.push(await measured(sweep, candidate));
    entries = options.speedRepeats === undefined ? stored : await timed(sweep, stored, options.speedRepeats);
  } catch (cause) {
    if (signal?.aborted !== true) throw cause;
    const done = `${output} holds ${Math.max(0, stored.length - 1)} of ${candidates.length} candidates`;
    throw new RarefyError(`${done}; the same command goes on from there.`, { cause });
  }
  const document: SweepDocument = {
    rarefySweep: 1,
    model: source.location,
    output,
    machine: machine(),
    entries: entries.map(({ timing: _, ...entry }: StoredEntry) => entry),
  };
  await writeJsonFile(join(output, "sweep.json"), document);
  return document;
}

/** Looks at the source before hours are spent on it. */
async function checked(
  source: LocalModelFiles,
  { candidates, calibration, signal, onProgress }: SweepOptions,
): Promise<Fingerprint> {
  const checkpoint = await openCheckpoint(source);
  try {
    const problems: string[] = [];
    for (const { name, recipe } of candidates) {
      await checkCompression(checkpoint, { recipe, calibration, gradients: gradientSource() }).catch((error) => {
        if (!(error instanceof ProblemsError)) throw error;
        problems.push(...error.problems.map((problem) => `${name}: ${problem}`));
      });
    }
    if (problems.length > 0) throw new ProblemsError("this sweep cannot be done", problems);
    return await fingerprint(checkpoint, { signal, onProgress });
  } finally {
    await checkpoint.close();
  }
}

/** The entry of a candidate, or of the source: taken from its file when that was made by the same call. */
async function measured(sweep: Sweep, candidate: SweepCandidate | undefined): Promise<StoredEntry> {
  const path = fileOf(sweep, candidate?.name);
  const key = await keyOf(sweep, candidate);
  const found = await readEntry(path);
  if (found?.key === key) return found;
  sweep.options.onCandidate?.(candidate?.name ?? "source");
  const entry = candidate === undefined ? await sourceEntry(sweep, key) : await candidateEntry(sweep, candidate, key);
  await writeJsonFile(path, entry);
  return entry;
}

/** Hours of measuring are not overwritten in passing. @throws UsageError that names the first entry of another sweep */
async function refuseOthers(sweep: Sweep): Promise<void> {
  if (sweep.options.force === true) return;
  for (const candidate of [undefined, ...sweep.options.candidates]) {
    const path = fileOf(sweep, candidate?.name);
    const found = await readEntry(path);
    if (found === undefined || found.key === (await keyOf(sweep, candidate))) continue;
    throw new UsageError(
      `${path} was measured with other settings, texts or weights; name another directory, or replace it (--force)`,
    );
  }
}

const fileOf = ({ output }: Sweep, name = "source") => join(output, `${name}.json`);

/**
 * The entries with the speed of each: all are timed together, in turn and one open at a time, since a machine is not the same
 * from one hour to the next. Candidates whose models are gone are made again.
 */
async function timed(sweep: Sweep, entries: readonly StoredEntry[], repeats: number): Promise<SweepEntry[]> {
  const { source, options } = sweep;
  const { candidates, evaluation, device, threads, weights, keep, signal, onProgress } = options;
  const key = await sha256Hex(JSON.stringify([entries.map((entry) => entry.key), repeats, threads]));
  let timings = entries.map(({ timing }) => (timing?.key === key ? timing : undefined));
  if (timings.includes(undefined)) {
    options.onCandidate?.("speed");
    const models = [source];
    for (const candidate of candidates) models.push(await compressed(sweep, candidate));
    const variants = models.map((files, i) => ({
      name: entries[i].name,
      async open() {
        const opened = await openModel(files, { weights, device, threads, signal });
        return { name: entries[i].name, model: opened.model, [Symbol.dispose]: () => opened[Symbol.dispose]() };
      },
    }));
    const speeds = await measureSpeedInTurn(variants, evaluation.tokens, {
      repeats,
      decodeTokens: 64,
      signal,
      onProgress,
    });
    timings = speeds.map((speed, i) => ({
      key,
      row: resultRow({ model: entries[i].name, weights: entries[i].row.weights, speed }),
    }));
    for (const [i, timing] of timings.entries()) {
      await writeJsonFile(fileOf(sweep, candidates[i - 1]?.name), { ...entries[i], timing });
    }
  }
  if (keep !== true) for (const { name } of candidates) await removed(sweep, name);
  return entries.map((entry, i) => ({ ...entry, row: { ...timings[i]!.row, ...entry.row } }));
}

const removed = ({ output }: Sweep, name: string) => removeOutput(join(output, name));

async function keyOf({ source, identity, options }: Sweep, candidate: SweepCandidate | undefined): Promise<string> {
  const { evaluation, calibration, tasks, window, maxWindows, weights, store, dtype, device } = options;
  const what = {
    version: packageVersion(),
    model: [source.location, identity],
    recipe: candidate?.recipe ?? null,
    text: evaluation.sha256,
    calibration: calibration === undefined ? null : calibration.sha256 + (calibration.windowsBegin ? " bos" : ""),
    how: [window, maxWindows, weights, store, dtype, device],
    ...(tasks && { tasks: [tasks.tasks.map(({ sha256 }) => sha256), tasks.scorer, tasks.resamples] }),
  };
  return sha256Hex(JSON.stringify(what));
}

async function sourceEntry(sweep: Sweep, key: string): Promise<SweepEntry> {
  const { source } = sweep;
  const row = await measure(sweep, source, basename(source.location));
  return { key, name: row.model, row: { ...row, bytesOnDisk: await weightBytesOf(source) } };
}

async function candidateEntry(sweep: Sweep, candidate: SweepCandidate, key: string): Promise<SweepEntry> {
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
async function compressed(
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
