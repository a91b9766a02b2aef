import { readdir, realpath } from "node:fs/promises";
import { resolve, sep } from "node:path";
import { StorageError, UsageError } from "../../core/index.js";
import { artifactFileName } from "../artifact.js";
import { syncDirectory } from "../atomic.node.js";
import { isMissing } from "../isMissing.node.js";
import { isModelFile } from "../modelFileNames.js";
import { buildDirectory } from "./build.node.js";
import { lockPath } from "./lock.node.js";
import { foreignIn, type Marker, notOurs, readMarker, removeOurs, writeMarker } from "./marker.node.js";
import { belongsTo, repairReplacement, replaceDirectory } from "./replace.node.js";
import { clearTemporaries, temporaryBeside } from "./temporaries.node.js";

/** What makes an output. */
export interface OutputOwner {
  /** In words, as messages name it: "compress". */
  command: string;
  /** SHA-256 over all that decides the result: settings, texts, every byte of the source. */
  job: string;
}

/** What an output may not touch, and what it may replace. */
export interface ClaimOptions {
  /** Directories that are still to be read; the output must not be or contain one of them. */
  inputs?: readonly string[];
  /** A finished result of another command, or of other settings, may be replaced. */
  force?: boolean;
}

/** An output that this process alone may write, until it is disposed of. */
export interface ClaimedOutput extends AsyncDisposable {
  /** Absolute path. */
  readonly target: string;
  /**
   * Whether the result of this very job is there already.
   * @throws UsageError when the result of something else is, and may not be replaced
   */
  accept(owner: OutputOwner, options?: { restart?: boolean }): boolean;
  /** Builds a directory beside the output and gives it its name; nothing is left of a build that throws. */
  build(owner: OutputOwner, fill: (directory: string) => Promise<void>): Promise<void>;
  /** Gives a finished directory of the same filesystem the name; an earlier result makes way. */
  place(directory: string, owner: OutputOwner): Promise<void>;
}

/**
 * Looks at a place for an output without changing anything.
 * @throws UsageError when it is or contains an input, is no directory, or holds what rarefy did not make
 */
export async function checkOutput(output: string, inputs: readonly string[] = []): Promise<void> {
  const target = resolve(output);
  await refuseInputs(target, inputs);
  await resultIn(target);
}

/**
 * Takes a directory for the result of a job: locks it, finishes what a killed process was doing to it, removes what dead processes
 * left beside it.
 * @throws UsageError as `checkOutput`; BusyError when another process is at it; StorageError where nothing can be written
 */
export async function claimOutput(output: string, options: ClaimOptions = {}): Promise<ClaimedOutput> {
  const { inputs = [], force = false } = options;
  const target = resolve(output);
  await checkOutput(target, inputs);
  const lock = await lockPath(target);
  try {
    await repairReplacement(target);
    // Also drops what dead processes were building for this name.
    await temporaryBeside(target);
    const found = await resultIn(target);
    const place: ClaimedOutput["place"] = async (directory, { command, job }) => {
      await clearTemporaries(directory, () => true);
      const files = (await readdir(directory)).filter((name) => !name.startsWith(".")).sort();
      await writeMarker(directory, { state: "finished", command, job, files });
      await syncDirectory(directory);
      // Results of earlier versions have no marker; what they consist of was checked.
      if (found !== undefined && (await readMarker(target)) === undefined) {
        const { state, command } = found;
        await writeMarker(target, { state, command, files: await readdir(target) });
      }
      await replaceDirectory(directory, target);
    };
    return {
      target,
      accept(owner, { restart = false } = {}) {
        if (found === undefined) return false;
        if (found.command === owner.command) {
          if (found.job === owner.job) return !restart;
          if (restart || force) return false;
          throw new UsageError(
            `${output} holds a finished result of ${found.command} with other settings, texts or weights; name another directory, ` +
              "or replace it (`force`)",
          );
        }
        if (force) return false;
        throw new UsageError(
          `${output} holds a finished result of ${found.command}; name another directory, or replace it (\`force\`)`,
        );
      },
      build: (owner, fill) => buildDirectory(target, fill, (directory) => place(directory, owner)),
      place,
      [Symbol.asyncDispose]: () => lock.release(),
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function refuseInputs(target: string, inputs: readonly string[]): Promise<void> {
  const real = await realpath(target).catch(() => target);
  for (const input of inputs) {
    const realInput = await realpath(input).catch((cause) => {
      if (isMissing(cause)) throw new UsageError(`there is no ${input} to read`, { cause });
      throw new StorageError(`${input} cannot be read: ${cause.message}`, { cause, code: cause.code });
    });
    if (realInput === real || realInput.startsWith(real + sep)) {
      throw new UsageError(`the output directory ${target} is or contains the input ${input}; name another directory`);
    }
  }
}

/**
 * Removes a finished result.
 * @throws UsageError for a directory that rarefy did not make, or with files in it that are not ours
 */
export async function removeOutput(output: string): Promise<void> {
  const marker = await readMarker(output);
  await removeOurs(output, marker === undefined ? () => false : belongsTo(marker));
}

/** Files of results that earlier versions left without a marker. */
const wasMade = (name: string) => isModelFile(name) || name === "training.jsonl" || name === "training.svg";

/**
 * The marker of a finished result, made up for those of earlier versions.
 * @returns undefined where there is nothing, or an empty directory
 */
async function resultIn(target: string): Promise<Marker | undefined> {
  let names: string[];
  try {
    names = await readdir(target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new UsageError(`the output ${target} is not a directory; name another one`, { cause: error });
  }
  if (names.length === 0) return undefined;
  const marker = await readMarker(target);
  if (marker === undefined && !names.includes(artifactFileName)) {
    throw new UsageError(
      `the output directory ${target} is not empty and was not made by rarefy (it has no ${artifactFileName}); ` +
        "name another directory or empty it",
    );
  }
  if (marker?.state === "running") {
    throw new UsageError(`${target} is where a job of ${marker.command} lives; name another directory`);
  }
  const foreign = await foreignIn(target, marker === undefined ? wasMade : belongsTo(marker));
  if (foreign !== undefined) throw notOurs(target, foreign);
  return marker ?? { rarefyDirectory: 1, state: "finished", command: "an earlier version of rarefy" };
}
