import * as z from "zod/mini";
import { FormatError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import {
  type Artifact,
  artifactVersion,
  type Checkpoint,
  type Compression,
  compressionOf,
  type FileSinks,
  type ModelFiles,
  memoryFiles,
  memorySinks,
  openCheckpoint,
  parseArtifact,
  readJsonFile,
  serializeArtifact,
  writeSafetensors,
} from "../../io/index.js";
import { createFile, hashOfSource, isModelFile, jsonBytes } from "../../io/internal.js";
import type { Tensor } from "../../tensor/index.js";
import type { BlockRecord } from "./storeBlock.js";

/** Where a job keeps what it has finished: files that appear whole or not at all. */
export interface Workspace {
  readonly files: ModelFiles;
  readonly sinks: FileSinks;
  remove(name: string): Promise<void>;
}

export const jobFileName = "job.json";
export const surveyFileName = "survey.json";
/** What became of the embedding, beside the file that holds it, until the job is done. */
export const embeddingFileName = "embedding.json";

/** File `index` of `count` of the result: the first holds what is outside the blocks, then one for each block. */
export const shardName = (index: number, count: number): string =>
  `model-${String(index + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`;

/** Beside each finished block. */
export const recordName = (layer: number): string => `block-${String(layer).padStart(5, "0")}.json`;

/** Gradients of a block of the source, until that is finished; the list of all is there once they are. */
export const gradientsName = (layer: number): string => `gradients-${String(layer).padStart(5, "0")}.safetensors`;
export const gradientListName = "gradients.json";
/** Gradients of heads and neurons of the whole source, until the job is finished; their hash is there once they are whole. */
export const unitGradientsName = "unit-gradients.safetensors";
export const unitGradientsHashName = "unit-gradients.json";

/** Whether a job puts files of this name into its workspace, those of the result included. */
export const isJobFile = (name: string): boolean =>
  name === jobFileName ||
  name === surveyFileName ||
  name === embeddingFileName ||
  name === gradientListName ||
  name === unitGradientsName ||
  name === unitGradientsHashName ||
  /^gradients-\d+\.safetensors$/.test(name) ||
  /^block-\d+\.json$/.test(name) ||
  isModelFile(name);

export function writeBytes({ sinks }: Workspace, name: string, bytes: Uint8Array): Promise<void> {
  return createFile(sinks, name, (sink) => sink.write(bytes));
}

export function writeJson(workspace: Workspace, name: string, value: unknown): Promise<void> {
  return writeBytes(workspace, name, jsonBytes(value));
}

/** Writes tensors as one safetensors file. */
export async function writeShard({ sinks }: Workspace, name: string, tensors: readonly Tensor[]): Promise<void> {
  await writeSafetensors(
    { create: () => sinks.create(name) },
    tensors.map((tensor) => ({ ...tensor, bytes: () => [tensor.bytes] })),
    { maxShardBytes: Number.POSITIVE_INFINITY },
  );
}

/**
 * The part of the result's rarefy.json that is about a block, as JSON.
 * @throws FormatError for what could not be read back, before anything is written
 */
export function recordOf({ source, sizes, tensors, matrices }: BlockRecord, job: JobRecord): unknown {
  const artifact: Artifact = {
    rarefy: artifactVersion,
    tensors,
    blocks: [sizes],
    origin: { compression: { ...job, layers: [{ source, matrices }] } },
  };
  return JSON.parse(new TextDecoder().decode(serializeArtifact(artifact)));
}

/** Notes a finished block beside its tensors: the hash of their file, and what is recorded of it. @param artifact from `recordOf` */
export async function writeRecord(
  workspace: Workspace,
  layer: number,
  shard: string,
  artifact: unknown,
): Promise<void> {
  await writeJson(workspace, recordName(layer), { shardSha256: await hashOfFile(workspace, shard), artifact });
}

/** SHA-256 of a file; undefined where there is none. */
export async function hashOfFile({ files }: Workspace, name: string): Promise<string | undefined> {
  const source = await files.open(name);
  try {
    return source && (await hashOfSource(source));
  } finally {
    await source?.close();
  }
}

/** What all blocks of a job say alike. */
export type JobRecord = Omit<Compression, "layers">;

const recordSchema = z.strictObject({ shardSha256: z.string(), artifact: z.unknown() });

/** @returns undefined when the block is not finished. @throws FormatError, also when its tensors are no longer what they were */
export async function readRecord(
  workspace: Workspace,
  layer: number,
  shard: string,
  job: string,
): Promise<BlockRecord | undefined> {
  const name = recordName(layer);
  const raw = await readJsonFile(workspace.files, name);
  if (raw === undefined) return undefined;
  const file = `${workspace.files.location}/${name}`;
  const { shardSha256, artifact } = checkSchema(recordSchema, raw, file, beginAnew);
  const parsed = parseArtifact(artifact, file);
  const { tensors = {}, blocks } = parsed;
  const compression = compressionOf(parsed);
  const [block] = compression?.layers ?? [];
  if (block === undefined || blocks?.length !== 1 || compression?.job !== job) {
    throw new FormatError({ file, problem: "not the record of this job's block", hint: beginAnew });
  }
  if ((await hashOfFile(workspace, shard)) !== shardSha256) {
    throw new FormatError({
      file: `${workspace.files.location}/${shard}`,
      problem: "not the bytes that the job wrote",
      hint: beginAnew,
    });
  }
  return { ...block, sizes: blocks[0], tensors };
}

export const beginAnew = "Begin anew (`restart`)";

/** A finished block as a checkpoint that holds nothing else. */
export async function openShard(workspace: Workspace, shard: string, { tensors }: BlockRecord): Promise<Checkpoint> {
  const json = new Map<string, Uint8Array>([
    ["config.json", new TextEncoder().encode("{}")],
    ["rarefy.json", serializeArtifact({ rarefy: artifactVersion, tensors })],
  ]);
  const memory = memoryFiles(workspace.files.location, json);
  return openCheckpoint({
    location: workspace.files.location,
    open: (name) => (name === "model.safetensors" ? workspace.files.open(shard) : memory.open(name)),
    close: () => memory.close(),
  });
}

/** A workspace in memory, for small models. @param files filled with the result */
export function memoryWorkspace(files: Map<string, Uint8Array>): Workspace {
  return {
    files: memoryFiles("memory", files),
    sinks: memorySinks(files),
    async remove(name) {
      files.delete(name);
    },
  };
}
