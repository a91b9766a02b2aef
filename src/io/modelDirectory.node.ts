import { mkdir, readdir, realpath, rename, rm, rmdir } from "node:fs/promises";
import { dirname, join, resolve, sep } from "node:path";
import { type JobOptions, Stage, UsageError } from "../core/index.js";
import { artifactFileName } from "./artifact.js";
import {
  copyFileAtomic,
  directorySinks,
  linkOrCopyFile,
  syncDirectory,
  temporaryBeside,
  writeFileAtomic,
} from "./atomic.node.js";
import type { FileSinks } from "./byteSink.js";
import type { LocalModelFiles } from "./byteSource.js";
import { makeDirectory } from "./makeDirectory.node.js";
import { isWeightFile } from "./modelFileNames.js";
import { readWhole } from "./textFile.js";

/** A model directory being built under a temporary name. */
export interface ModelDirectoryBuilder {
  /** Where its files lie while it is built. */
  readonly directory: string;
  readonly sinks: FileSinks;
  add(name: string, bytes: Uint8Array): Promise<void>;
  /** Takes over the files of another model that `keep` accepts: weights by hard link or copy, others by copy. */
  takeOver(from: LocalModelFiles, keep?: (name: string) => boolean): Promise<void>;
}

/**
 * Makes a model directory whole or not at all: built beside `output`, then renamed. An earlier output of rarefy (it has a
 * rarefy.json) is replaced; any other directory that is not empty is refused.
 * @param inputs directories the build reads; `output` must not be or contain one of them
 * @throws UsageError before anything is written; what `build` throws, after the temporary directory is removed
 */
export async function buildModelDirectory(
  output: string,
  inputs: readonly string[],
  build: (builder: ModelDirectoryBuilder) => Promise<void>,
  options: JobOptions = {},
): Promise<void> {
  const { target, place } = await claimOutput(output, inputs);
  await makeDirectory(dirname(target));
  const directory = temporaryBeside(target);
  await mkdir(directory);
  try {
    await build(builderIn(directory, options));
    options.signal?.throwIfAborted();
    await place(directory);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/** A directory that may be written to, and how it is put there. */
export interface ClaimedOutput {
  /** Absolute path. */
  readonly target: string;
  /** Renames a finished directory of the same filesystem to it; an earlier output of rarefy makes way. */
  place(directory: string): Promise<void>;
}

/**
 * @param inputs directories that are still to be read; `output` must not be or contain one of them
 * @throws UsageError when something else is there
 */
export async function claimOutput(output: string, inputs: readonly string[]): Promise<ClaimedOutput> {
  const target = resolve(output);
  await refuseInputs(target, inputs);
  const old = await refuseForeign(target);
  return {
    target,
    async place(directory) {
      await syncDirectory(directory);
      await replaceDirectory(directory, target, old);
    },
  };
}

function builderIn(directory: string, options: JobOptions): ModelDirectoryBuilder {
  return {
    directory,
    sinks: directorySinks(directory),
    add: (name, bytes) => writeFileAtomic(join(directory, name), bytes),
    async takeOver(from, keep = () => true) {
      const names = (await from.names()).filter(keep);
      const stage = new Stage("take over files", names.length, "files", options.onProgress);
      for (const name of names) {
        options.signal?.throwIfAborted();
        const target = join(directory, name);
        const path = from.pathOf(name);
        if (path === undefined) {
          const source = (await from.open(name))!;
          await writeFileAtomic(target, await readWhole(source, source.byteLength));
        } else {
          // People edit configs in place; through a link that would change the original too.
          const takeFile = isWeightFile(name) ? linkOrCopyFile : copyFileAtomic;
          await takeFile(path, target);
        }
        stage.advance(1, name);
      }
    },
  };
}

async function refuseInputs(target: string, inputs: readonly string[]): Promise<void> {
  const real = await realpath(target).catch(() => target);
  for (const input of inputs) {
    const realInput = await realpath(input);
    if (realInput === real || realInput.startsWith(real + sep)) {
      throw new UsageError(`the output directory ${target} is or contains the input ${input}; name another directory`);
    }
  }
}

type Old = "none" | "empty" | "replaceable";

async function refuseForeign(target: string): Promise<Old> {
  let names: string[];
  try {
    names = await readdir(target);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "none";
    throw new UsageError(`the output ${target} is not a directory; name another one`, { cause: error });
  }
  if (names.length === 0) return "empty";
  if (names.includes(artifactFileName)) return "replaceable";
  throw new UsageError(
    `the output directory ${target} is not empty and was not made by rarefy (it has no ${artifactFileName}); ` +
      "name another directory or empty it",
  );
}

async function replaceDirectory(directory: string, target: string, old: Old): Promise<void> {
  if (old !== "replaceable") {
    // A rename replaces an empty directory on POSIX only.
    if (old === "empty") await rmdir(target);
    await rename(directory, target);
    await syncDirectory(dirname(target));
    return;
  }
  const aside = temporaryBeside(target);
  await rename(target, aside);
  try {
    await rename(directory, target);
  } catch (error) {
    await rename(aside, target);
    throw error;
  }
  await syncDirectory(dirname(target));
  await rm(aside, { recursive: true, force: true });
}
