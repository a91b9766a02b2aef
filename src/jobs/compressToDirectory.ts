import { readdir, rm, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { RarefyError } from "../core/index.js";
import { isCompanionFile, type LocalModelFiles, openCheckpoint, readArtifact } from "../io/index.js";
import { claimOutput, directoryFiles, directorySinks, JobDirectory } from "../io/index.node.js";
import {
  type CompressedModel,
  type CompressionPlan,
  type CompressOptions,
  planCompression,
  runCompression,
  type Workspace,
} from "../pipeline/index.js";
import { isJobFile, jobIn } from "../pipeline/internal.js";
import { gradientSource } from "../train/index.js";
import { watchSource } from "./source.js";
import { packageVersion } from "./version.js";

/** What to do; nothing but the recipe, the text and the storage decides the bytes of the result. */
export interface CompressDirectoryOptions extends Omit<CompressOptions, "limits" | "version" | "checkSource"> {
  /** What made the result, in words. Default "compress". */
  command?: string;
  /** Told what the job will take, before it begins. */
  onPlan?(plan: CompressionPlan): void;
  /** Begin anew, whatever an earlier run of the same command has left, finished or not. */
  restart?: boolean;
  /** Replace also the finished result, or the unfinished job, of something else. */
  force?: boolean;
}

/** What came of it. */
export interface CompressedDirectory extends CompressedModel {
  plan: CompressionPlan;
  /** The output was there already, made by the same job. */
  wasThere: boolean;
}

/**
 * Compresses a model directory into `output`, which appears whole or not at all. Until then everything lies in
 * `output.partial`; the same call goes on with what a killed or stopped one left there and gives the same bytes.
 * @throws UsageError, ProblemsError, BusyError, StorageError before anything is written; FormatError when the source changes
 * while it is read; when stopped, RarefyError that says how to go on
 */
export async function compressToDirectory(
  source: LocalModelFiles,
  output: string,
  given: CompressDirectoryOptions,
): Promise<CompressedDirectory> {
  const { command = "compress", restart = false, force = false, signal, onPlan } = given;
  await using claimed = await claimOutput(output, { inputs: [source.directory], force });
  const partial = new JobDirectory(`${claimed.target}.partial`, "compress", isJobFile);
  await partial.check();
  const checkpoint = await openCheckpoint(source);
  try {
    const checkSource = await watchSource(source);
    const options = { gradients: gradientSource(), ...given, version: packageVersion(), checkSource };
    const plan = await planCompression(checkpoint, { ...options, limits: await limitsOf(dirname(claimed.target)) });
    const owner = { command, job: plan.job };
    if (claimed.accept(owner, { restart })) {
      return { ...(await finishedBefore(output, plan)), plan, wasThere: true };
    }
    onPlan?.(plan);
    const beginAnew = restart || (force && (await jobIn(directoryWorkspace(partial.path))) !== plan.job);
    if (beginAnew) await partial.remove();
    await partial.open();
    const workspace = directoryWorkspace(partial.path);
    try {
      const companions = (await source.names()).filter(isCompanionFile).sort();
      const result = await runCompression(checkpoint, plan, { workspace, companions }, options);
      await claimed.place(partial.path, owner);
      return { ...result, plan, wasThere: false };
    } catch (cause) {
      if (signal?.aborted !== true) throw cause;
      const blocks = (await readdir(partial.path)).filter((name) => /^block-\d+\.json$/.test(name)).length;
      throw new RarefyError(
        `${output}.partial holds ${blocks} of ${plan.layers} blocks; the same command goes on from there.`,
        { cause },
      );
    }
  } finally {
    await checkpoint.close();
  }
}

async function finishedBefore(output: string, { layers }: CompressionPlan): Promise<CompressedModel> {
  const artifact = (await readArtifact({ files: directoryFiles(output), location: output }))!;
  const elapsedMs = { survey: 0, statistics: 0, forward: 0, compress: 0, files: 0 };
  return { artifact, resumedBlocks: layers, elapsedMs };
}

function directoryWorkspace(directory: string): Workspace {
  return {
    files: directoryFiles(directory),
    sinks: directorySinks(directory),
    remove: (name) => rm(join(directory, name), { force: true }),
  };
}

async function limitsOf(directory: string): Promise<CompressOptions["limits"]> {
  const memoryBytes = process.availableMemory?.();
  // The directory above may have to be made too.
  const disk = await statfs(directory).catch(() => undefined);
  return { memoryBytes, diskBytes: disk && disk.bavail * disk.bsize };
}
