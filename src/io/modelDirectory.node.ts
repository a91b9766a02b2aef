import { join } from "node:path";
import { type JobOptions, Stage } from "../core/index.js";
import { copyFileAtomic, directorySinks, linkOrCopyFile, writeFileAtomic } from "./atomic.node.js";
import type { FileSinks } from "./byteSink.js";
import type { LocalModelFiles } from "./byteSource.js";
import { isWeightFile } from "./modelFileNames.js";
import { type ClaimOptions, claimOutput, type OutputOwner } from "./output/claim.node.js";
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

/** Who makes a model directory, and whether it may take the place of another result. */
export interface BuildOptions extends JobOptions, Pick<ClaimOptions, "force"> {
  /** Default: a program, of which nothing more is known. */
  owner?: OutputOwner;
}

/**
 * Makes a model directory whole or not at all: built beside `output`, then renamed. What `owner` has made is replaced; a result
 * of another owner only with `force`; any other directory that is not empty is refused, and so is a result with files in it that
 * are not ours.
 * @param inputs directories the build reads; `output` must not be or contain one of them
 * @throws UsageError, BusyError, StorageError before anything is written; what `build` throws, after what it made is removed
 */
export async function buildModelDirectory(
  output: string,
  inputs: readonly string[],
  build: (builder: ModelDirectoryBuilder) => Promise<void>,
  options: BuildOptions = {},
): Promise<void> {
  const { owner = { command: "a program", job: "" }, force } = options;
  await using claimed = await claimOutput(output, { inputs, force });
  claimed.accept(owner);
  await claimed.build(owner, async (directory) => {
    await build(modelDirectoryBuilder(directory, options));
    options.signal?.throwIfAborted();
  });
}

/** Puts files into a directory that is being built. */
export function modelDirectoryBuilder(directory: string, options: JobOptions = {}): ModelDirectoryBuilder {
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
