import { type JobOptions, quote, Stage, UsageError } from "../core/index.js";
import { byteLengthOf, dtypeBytes, type TensorInfo } from "../tensor/index.js";
import { type ByteSink, createFile, type FileSinks } from "./byteSink.js";
import { jsonBytes } from "./json.js";
import { indexFileName, singleFileName } from "./placeTensors.js";

/** A tensor to be written; its bytes are asked for when its turn comes, and not kept. */
export interface TensorToWrite extends TensorInfo {
  /** Little-endian, row-major; `byteLengthOf(info)` bytes in pieces of any length. */
  bytes(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** How a checkpoint is cut into files. */
export interface WriteOptions extends JobOptions {
  /** Tensor bytes per shard, at most, unless one tensor alone has more. Default 5·10⁹, as in transformers. */
  maxShardBytes?: number;
}

/**
 * Writes a checkpoint as safetensors: one `model.safetensors`, or `model-00001-of-0000N.safetensors` … and, last,
 * `model.safetensors.index.json`. Tensors keep their order over the shards; inside a file those with larger elements come
 * first, so that every tensor begins at a multiple of its element size.
 * @throws UsageError on two tensors of one name or bytes of a wrong length; nothing is left of the file being written.
 */
export async function writeSafetensors(
  sinks: FileSinks,
  tensors: readonly TensorToWrite[],
  options: WriteOptions = {},
): Promise<void> {
  const shards = planShards(tensors, options.maxShardBytes ?? 5e9);
  const totalBytes = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
  const stage = new Stage("write weights", totalBytes, "bytes", options.onProgress);
  const weightMap = new Map<string, string>();
  for (const [i, shard] of shards.entries()) {
    const name = shards.length === 1 ? singleFileName : shardName(i, shards.length);
    await createFile(sinks, name, (sink) => writeShard(sink, shard, stage, options.signal));
    for (const tensor of shard) weightMap.set(tensor.name, name);
  }
  if (shards.length === 1) return;
  const index = {
    metadata: { total_size: totalBytes },
    weight_map: Object.fromEntries([...weightMap].sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  const bytes = jsonBytes(index);
  await createFile(sinks, indexFileName, (sink) => sink.write(bytes));
}

/** Writes tensors into one file of a name of their own. */
export function writeSafetensorsFile(
  sinks: FileSinks,
  name: string,
  tensors: readonly TensorToWrite[],
  { onProgress, signal }: JobOptions = {},
): Promise<void> {
  const totalBytes = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
  const stage = new Stage("write weights", totalBytes, "bytes", onProgress);
  return createFile(sinks, name, (sink) => writeShard(sink, tensors, stage, signal));
}

const shardName = (index: number, count: number) =>
  `model-${String(index + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`;

function planShards(tensors: readonly TensorToWrite[], maxShardBytes: number): TensorToWrite[][] {
  const names = new Set<string>();
  const shards: TensorToWrite[][] = [[]];
  let shardBytes = 0;
  for (const tensor of tensors) {
    if (names.has(tensor.name) || tensor.name === "__metadata__") {
      throw new UsageError(`tensor name ${quote(tensor.name)} is taken`);
    }
    names.add(tensor.name);
    const bytes = byteLengthOf(tensor);
    if (shardBytes > 0 && shardBytes + bytes > maxShardBytes) {
      shards.push([]);
      shardBytes = 0;
    }
    shards[shards.length - 1].push(tensor);
    shardBytes += bytes;
  }
  return shards.map((shard) => shard.sort((a, b) => dtypeBytes[b.dtype] - dtypeBytes[a.dtype]));
}

async function writeShard(
  sink: ByteSink,
  tensors: readonly TensorToWrite[],
  stage: Stage,
  signal: AbortSignal | undefined,
): Promise<void> {
  await sink.write(headerOf(tensors));
  for (const tensor of tensors) {
    let left = byteLengthOf(tensor);
    for await (const piece of tensor.bytes()) {
      signal?.throwIfAborted();
      left -= piece.byteLength;
      if (left < 0) break;
      await sink.write(piece);
      stage.advance(piece.byteLength, tensor.name);
    }
    if (left !== 0) {
      throw new UsageError(`${tensor.name}: ${left > 0 ? `${left} bytes too few` : "too many bytes"} for its shape`);
    }
  }
}

/** Length (8 bytes) and JSON, padded with spaces so that the tensors begin at a multiple of 8. */
function headerOf(tensors: readonly TensorInfo[]): Uint8Array {
  let end = 0;
  const entries: [string, unknown][] = [["__metadata__", { format: "pt" }]];
  for (const { name, dtype, shape } of tensors) {
    const begin = end;
    end += byteLengthOf({ dtype, shape });
    entries.push([name, { dtype, shape, data_offsets: [begin, end] }]);
  }
  // Joined by hand: an object would drop "__proto__" and reorder numeric names.
  const json = `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(",")}}`;
  const text = new TextEncoder().encode(json);
  const header = new Uint8Array(8 + Math.ceil(text.byteLength / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.byteLength - 8), true);
  header.set(text, 8);
  return header;
}
