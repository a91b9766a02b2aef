import type { JobOptions } from "../core/index.js";
import { type LocalModelFiles, sha256Hex } from "../io/index.js";
import { claimOutput, type ModelDirectoryBuilder, modelDirectoryBuilder } from "../io/index.node.js";
import type { TokenizedText } from "../text/index.js";
import { fingerprintOf, watchSource } from "./source.js";
import { packageVersion } from "./version.js";

/** A job that leaves the weights of a model as they are and writes what it found beside them. */
export interface BesideWeights<T extends TokenizedText | undefined> extends JobOptions {
  /** In words, as messages name it: "calibrate". */
  command: string;
  /** Replace the finished result of something else. */
  force?: boolean;
  /** What it works on, where it works on a text; asked for once everything that is cheap to check is right. */
  text(): Promise<T>;
  /** All else that decides the result, as JSON. */
  settings: object;
}

/**
 * Writes a model directory whole or not at all: what `fill` puts there, of a source that stayed what it was.
 * @returns what `fill` gives
 * @throws UsageError, BusyError, StorageError before the weights are read; FormatError when the source changes meanwhile; what
 * `fill` throws
 */
export async function writeBesideWeights<T extends TokenizedText | undefined, R>(
  source: LocalModelFiles,
  output: string,
  { command, force, text: textOf, settings, signal, onProgress }: BesideWeights<T>,
  fill: (builder: ModelDirectoryBuilder, text: T) => Promise<R>,
): Promise<R> {
  const job = { signal, onProgress };
  await using claimed = await claimOutput(output, { inputs: [source.directory], force });
  const text = await textOf();
  const checkSource = await watchSource(source);
  const what = { version: packageVersion(), source: await fingerprintOf(source, job), text: text?.sha256, ...settings };
  const owner = { command, job: await sha256Hex(JSON.stringify(what)) };
  // The same command gives the same bytes: it may replace what it made.
  claimed.accept(owner);
  const filled: R[] = [];
  await claimed.build(owner, async (directory) => {
    filled.push(await fill(modelDirectoryBuilder(directory, job), text));
    await checkSource();
    signal?.throwIfAborted();
  });
  return filled[0];
}
