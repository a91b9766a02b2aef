import { join, resolve } from "node:path";
import { ProblemsError, RarefyError, Stage, UsageError } from "../core/index.js";
import { measureSpeedInTurn, resultRow } from "../eval/index.js";
import { type LocalModelFiles, openCheckpoint, sha256Hex } from "../io/index.js";
import { JobDirectory, lockPath } from "../io/index.node.js";
import { openModel } from "../pipeline/index.js";
import { checkCompression } from "../pipeline/internal.js";
import { gradientSource } from "../train/index.js";
import { type Machine, machine } from "./machine.js";
import type { SweepCandidate } from "./sweepCandidates.js";
import { readEntry, type StoredEntry, type SweepEntry, writeJsonFile } from "./sweepEntries.js";
import { entryFromWorker } from "./sweepJob.js";
import {
  candidateEntry,
  compressed,
  identityOf,
  keyOf,
  removed,
  type SourceIdentity,
  type Sweep,
  type SweepOptions,
  sourceEntry,
} from "./sweepMeasure.js";

/** What a sweep wrote to `sweep.json`; the first entry is the source. */
export interface SweepDocument {
  rarefySweep: 1;
  model: string;
  output: string;
  machine: Machine;
  entries: SweepEntry[];
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
  if (options.workers !== undefined && (options.tasks ?? options.keep ?? options.speedRepeats) !== undefined) {
    throw new UsageError("workers measure perplexity and leave no models: no tasks, no models to keep, no times");
  }
  await using _lock = await lockPath(resolve(output));
  // Other files in it stay as they are: only those of the sweep's own names are written.
  const directory = new JobDirectory(resolve(output), "sweep", () => true);
  await directory.check();
  const sweep: Sweep = { source, output, options, identity: await checked(source, options) };
  await refuseOthers(sweep);
  await directory.open();
  const finished = new Set<SweepCandidate>();
  let entries: SweepEntry[];
  try {
    const stored = await (options.workers === undefined ? inTurn : overWorkers)(sweep, finished);
    entries = options.speedRepeats === undefined ? stored : await timed(sweep, stored, options.speedRepeats);
  } catch (cause) {
    if (signal?.aborted !== true) throw cause;
    const done = `${output} holds ${finished.size} of ${candidates.length} candidates`;
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
): Promise<SourceIdentity> {
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
    return await identityOf(checkpoint, { signal, onProgress });
  } finally {
    await checkpoint.close();
  }
}

type MakeEntry = (candidate: SweepCandidate | undefined, key: string) => Promise<SweepEntry>;

/** All entries, made here one after the other; the source is the first. */
async function inTurn(sweep: Sweep, finished: Set<SweepCandidate>): Promise<StoredEntry[]> {
  const make: MakeEntry = (candidate, key) => {
    sweep.options.onCandidate?.(candidate?.name ?? "source");
    return candidate === undefined ? sourceEntry(sweep, key) : candidateEntry(sweep, candidate, key);
  };
  const entries = [await stored(sweep, undefined, make)];
  for (const candidate of sweep.options.candidates) {
    entries.push(await stored(sweep, candidate, make));
    finished.add(candidate);
  }
  return entries;
}

/** The same entries: workers make those of candidates, in any order, while the source is measured here. */
async function overWorkers(sweep: Sweep, finished: Set<SweepCandidate>): Promise<StoredEntry[]> {
  const { candidates, signal, onProgress, onCandidate, workers } = sweep.options;
  // What fails or stops ends the wait for the others.
  const ended = new AbortController();
  const waiting = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal]);
  const stage = new Stage("candidates from workers", candidates.length, "candidates", onProgress);
  const make: MakeEntry = (candidate, key) => {
    if (candidate !== undefined) return entryFromWorker(sweep, workers!, candidate, key, waiting);
    onCandidate?.("source");
    return sourceEntry(sweep, key);
  };
  try {
    return await Promise.all([
      stored(sweep, undefined, make),
      ...candidates.map(async (candidate) => {
        const entry = await stored(sweep, candidate, make);
        finished.add(candidate);
        stage.advance(1, candidate.name);
        return entry;
      }),
    ]);
  } finally {
    ended.abort();
  }
}

/** The entry of a candidate, or of the source: taken from its file when that was made by the same call, else made and kept there. */
async function stored(sweep: Sweep, candidate: SweepCandidate | undefined, make: MakeEntry): Promise<StoredEntry> {
  const path = fileOf(sweep, candidate?.name);
  const key = await keyOf(sweep, candidate);
  const found = await readEntry(path);
  if (found?.key === key) return found;
  const entry = await make(candidate, key);
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
      `${path} was measured with other settings, texts or weights; name another directory, or replace it (\`force\`)`,
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
