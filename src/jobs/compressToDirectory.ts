import { readdir, rm, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { RarefyError } from "../core/index.js";
import { isCompanionFile, type LocalModelFiles, openCheckpoint, readArtifact } from "../io/index.js";
import { claimOutput, directoryFiles, directorySinks, makeDirectory } from "../io/index.node.js";
import {
  type CompressedModel,
  type CompressionPlan,
  type CompressOptions,
  jobIn,
  planCompression,
  runCompression,
  type Workspace,
} from "../pipeline/index.js";
import { packageVersion } from "./version.js";

export interface CompressDirectoryOptions extends Omit<CompressOptions, "limits" | "version"> {
  /** Told what the job will take, before it begins. */
  onPlan?(plan: CompressionPlan): void;
  /** Drop what an earlier run of the command left, finished or not. */
  restart?: boolean;
  /** Drop what a run of another job left beside the output; default: refuse. */
  replaceOtherJob?: boolean;
}

export interface CompressedDirectory extends CompressedModel {
  plan: CompressionPlan;
  /** The output was there already, made by the same job. */
  wasThere: boolean;
}

/**
 * Compresses a model directory into `output`, which appears whole or not at all. Until then everything lies in
 * `output.partial`; the same call goes on with what a killed or stopped one left there and gives the same bytes.
 * @throws UsageError, ProblemsError before anything is written; when stopped, RarefyError that says how to go on
 */
export async function compressToDirectory(
  source: LocalModelFiles,
  output: string,
  given: CompressDirectoryOptions,
): Promise<CompressedDirectory> {
  const options = { ...given, version: packageVersion() };
  const checkpoint = await openCheckpoint(source);
  try {
    const partial = `${resolve(output)}.partial`;
    const plan = await planCompression(checkpoint, { ...options, limits: await limitsOf(dirname(partial)) });
    if (options.restart === true) await rm(partial, { recursive: true, force: true });
    else {
      const there = await readArtifact({ files: directoryFiles(output), location: output }).catch(() => undefined);
      if (there?.compression?.job === plan.job) {
        const elapsedMs = { survey: 0, statistics: 0, forward: 0, compress: 0, files: 0 };
        return { artifact: there, resumedBlocks: plan.layers, elapsedMs, plan, wasThere: true };
      }
    }
    const { place } = await claimOutput(output, [source.directory]);
    options.onPlan?.(plan);
    const workspace = directoryWorkspace(partial);
    if (options.replaceOtherJob === true && (await jobIn(workspace)) !== plan.job) {
      await rm(partial, { recursive: true, force: true });
    }
    await makeDirectory(partial);
    await dropTemporaries(partial);
    try {
      const companions = (await source.names()).filter(isCompanionFile).sort();
      const result = await runCompression(checkpoint, plan, { workspace, companions }, options);
      await place(partial);
      return { ...result, plan, wasThere: false };
    } catch (cause) {
      if (options.signal?.aborted !== true) throw cause;
      const blocks = (await readdir(partial)).filter((name) => /^block-\d+\.json$/.test(name)).length;
      throw new RarefyError(
        `${output}.partial holds ${blocks} of ${plan.layers} blocks; the same command goes on from there.`,
        { cause },
      );
    }
  } finally {
    await checkpoint.close();
  }
}

function directoryWorkspace(directory: string): Workspace {
  return {
    files: directoryFiles(directory),
    sinks: directorySinks(directory),
    remove: (name) => rm(join(directory, name), { force: true }),
  };
}

/** What a killed run was writing. */
async function dropTemporaries(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (name.startsWith(".") && name.endsWith(".tmp")) await rm(join(directory, name), { force: true });
  }
}

async function limitsOf(directory: string): Promise<CompressOptions["limits"]> {
  const memoryBytes = process.availableMemory?.();
  // The directory above may have to be made too.
  const disk = await statfs(directory).catch(() => undefined);
  return { memoryBytes, diskBytes: disk && disk.bavail * disk.bsize };
}
