import { tensorsOf } from "../../arch/index.js";
import type { JobOptions } from "../../core/index.js";
import {
  type Artifact,
  type Checkpoint,
  readSafetensorsHeader,
  type TensorToWrite,
  writeSafetensors,
} from "../../io/index.js";
import { groupSize } from "../../pack/index.js";
import { byteLengthOf, dtypeBytes, type TensorInfo } from "../../tensor/index.js";
import { embeddingFactors } from "./embedding.js";
import type { CompressionPlan } from "./planned.js";
import type { BlockRecord, StorageOptions } from "./storeBlock.js";
import { embeddingFileName, type Workspace, writeBytes, writeJson } from "./workspace.js";

/** What is outside the blocks, with the embedding as factors if a stage wants that; nothing when the file is there. */
export async function writeOutside(
  checkpoint: Checkpoint,
  { description, embedding }: Pick<CompressionPlan, "description" | "embedding">,
  workspace: Workspace,
  shard: string,
  options: JobOptions & Pick<StorageOptions, "dtype">,
): Promise<void> {
  const there = await workspace.files.open(shard);
  if (there !== undefined) return there.close();
  const { spec } = description.config;
  const outside = tensorsOf({ ...spec, blocks: [] }).flatMap(({ name }) => checkpoint.tensors.get(name) ?? []);
  const factored = embedding && (await embeddingFactors(checkpoint, spec.embedding.table, embedding, options.dtype));
  // The record lies beside the file: a job that goes on finds the one with the other.
  if (factored) await writeJson(workspace, embeddingFileName, factored.record);
  await writeSafetensors(
    { create: () => workspace.sinks.create(shard) },
    outside.flatMap((info) =>
      factored && info.name === spec.embedding.table.tensor
        ? factored.tensors.map((tensor) => ({ ...tensor, bytes: () => [tensor.bytes] }))
        : [copyOf(checkpoint, info)],
    ),
    { ...options, maxShardBytes: Number.POSITIVE_INFINITY },
  );
}

const pieceBytes = 4 << 20;

/** A tensor of the source, read by whole rows. */
function copyOf(checkpoint: Checkpoint, info: TensorInfo): TensorToWrite {
  const { name, dtype, shape } = info;
  const total = byteLengthOf(info);
  const rowBytes = shape.slice(1).reduce((product, size) => product * size, dtypeBytes[dtype]);
  const step = Math.max(1, Math.floor(pieceBytes / rowBytes)) * rowBytes;
  return {
    name,
    dtype,
    shape,
    async *bytes() {
      for (let at = 0; at < total; at += step) yield checkpoint.read(name, at, Math.min(step, total - at));
    },
  };
}

/** Small files of the source, byte by byte. */
export async function copyCompanions(
  checkpoint: Checkpoint,
  workspace: Workspace,
  names: readonly string[],
): Promise<void> {
  for (const name of names) {
    const source = await checkpoint.files.open(name);
    if (source === undefined) continue;
    await writeBytes(workspace, name, await source.read(0, source.byteLength));
    await source.close();
  }
}

/** Which file holds which tensor. */
export async function writeIndex(workspace: Workspace, shards: readonly string[]): Promise<void> {
  const placed: [string, string][] = [];
  let totalBytes = 0;
  for (const shard of shards) {
    const source = (await workspace.files.open(shard))!;
    const { tensors } = await readSafetensorsHeader(source);
    await source.close();
    for (const tensor of tensors.values()) {
      placed.push([tensor.name, shard]);
      totalBytes += tensor.byteLength;
    }
  }
  placed.sort(([a], [b]) => (a < b ? -1 : 1));
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(placed) };
  await writeJson(workspace, "model.safetensors.index.json", index);
}

/** The packed format that runs the codes of all matrices as they are, when there is one. */
export function runsIn(records: readonly BlockRecord[]): Pick<Artifact, "weights"> {
  let bits = 0;
  for (const { tensors, matrices } of records) {
    const declared = Object.values(tensors);
    if (declared.length < Object.keys(matrices).length) return {};
    for (const declaration of declared) {
      const grid = "grid" in declaration ? declaration.grid : undefined;
      const fits = grid?.symmetric === true && grid.groupSize === groupSize && grid.scaleDType === "BF16";
      if (!fits) return {};
      bits = Math.max(bits, grid.bits);
    }
  }
  return { weights: bits <= 4 ? "q4" : "q8" };
}
