import { FormatError, UsageError } from "../core/index.js";
import { type TensorInfo, toFloat32 } from "../tensor/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { isPlainFileName } from "./fileName.js";
import { isJsonObject, readJsonFile } from "./json.js";
import { readSafetensorsHeader } from "./safetensors.js";
import type { StoredTensor } from "./safetensorsHeader.js";

/** A model directory opened for reading: its config and its tensors, read by range. */
export interface Checkpoint {
  /** For messages: the directory, URL or Hub id. */
  readonly location: string;
  readonly files: ModelFiles;
  /** `config.json`, parsed and not yet checked. */
  readonly config: unknown;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * Stored bytes of a tensor: `byteLength` of them (default: the rest) from `byteOffset` (default 0).
   * @param into filled and returned when given; must be `byteLength` long. It may be a view of shared memory.
   * @throws FormatError when there is no such tensor or the file ends early, UsageError when the range leaves the tensor.
   */
  read(name: string, byteOffset?: number, byteLength?: number, into?: Uint8Array): Promise<Uint8Array>;
  /** A whole tensor widened to f32, row-major. @throws FormatError, also for a dtype without f32 form. */
  readFloat32(name: string): Promise<Float32Array>;
  /** Another JSON file of the directory; undefined when there is none. */
  readJson(fileName: string): Promise<unknown | undefined>;
  close(): Promise<void>;
}

export const singleFileName = "model.safetensors";
export const indexFileName = "model.safetensors.index.json";

/**
 * Opens a checkpoint in Hugging Face layout: `config.json` and `model.safetensors`, or shards named by
 * `model.safetensors.index.json`. Reads the headers of all shards, no tensor bytes.
 * @throws FormatError
 */
export async function openCheckpoint(files: ModelFiles): Promise<Checkpoint> {
  const config = await readJsonFile(files, "config.json");
  if (config === undefined) {
    throw new FormatError({
      file: files.location,
      problem: "there is no config.json",
      hint: "Give a model directory in Hugging Face layout",
    });
  }
  const sources: ByteSource[] = [];
  try {
    const placed = await placeTensors(files, sources);
    return new FileCheckpoint(files, config, sources, placed);
  } catch (error) {
    await Promise.all(sources.map((source) => source.close()));
    throw error;
  }
}

interface PlacedTensor {
  source: ByteSource;
  tensor: StoredTensor;
}

async function placeTensors(files: ModelFiles, sources: ByteSource[]): Promise<Map<string, PlacedTensor>> {
  const single = await files.open(singleFileName);
  if (single !== undefined) {
    sources.push(single);
    const { tensors } = await readSafetensorsHeader(single);
    return new Map(Array.from(tensors, ([name, tensor]) => [name, { source: single, tensor }]));
  }

  const index = await readJsonFile(files, indexFileName);
  if (index === undefined) {
    throw new FormatError({
      file: files.location,
      problem: `there is neither ${singleFileName} nor ${indexFileName}`,
      hint: "Only safetensors weights are read; convert other formats first",
    });
  }
  const placed = new Map<string, PlacedTensor>();
  for (const [shard, names] of shardsOf(index, `${files.location}/${indexFileName}`)) {
    const source = await files.open(shard);
    if (source === undefined) {
      throw new FormatError({
        file: `${files.location}/${shard}`,
        field: names[0],
        problem: `the shard is missing, ${indexFileName} names it`,
        hint: "The download may be incomplete",
      });
    }
    sources.push(source);
    const { tensors } = await readSafetensorsHeader(source);
    for (const name of names) {
      const tensor = tensors.get(name);
      if (tensor === undefined) {
        throw new FormatError({
          file: source.name,
          field: name,
          problem: `no such tensor, though ${indexFileName} places it here`,
        });
      }
      placed.set(name, { source, tensor });
    }
  }
  return placed;
}

/** The shards a parsed index names, each with its tensors, in order of first mention. @throws FormatError */
export function shardsOf(index: unknown, file: string): Map<string, string[]> {
  const weightMap = isJsonObject(index) ? index.weight_map : undefined;
  if (!isJsonObject(weightMap)) throw new FormatError({ file, field: "weight_map", problem: "not a JSON object" });
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== "string" || !isPlainFileName(shard) || !shard.endsWith(".safetensors")) {
      throw new FormatError({
        file,
        field: `weight_map.${name}`,
        problem: `shard ${JSON.stringify(shard)?.slice(0, 80)}`,
        expected: "the plain name of a .safetensors file, without any path",
      });
    }
    const names = shards.get(shard);
    if (names === undefined) shards.set(shard, [name]);
    else names.push(name);
  }
  return shards;
}

class FileCheckpoint implements Checkpoint {
  readonly location: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;

  constructor(
    readonly files: ModelFiles,
    readonly config: unknown,
    readonly sources: readonly ByteSource[],
    readonly placed: ReadonlyMap<string, PlacedTensor>,
  ) {
    this.location = files.location;
    this.tensors = new Map(Array.from(placed, ([name, { tensor }]) => [name, tensor]));
  }

  async read(name: string, byteOffset = 0, byteLength?: number, into?: Uint8Array): Promise<Uint8Array> {
    const { source, tensor } = this.#find(name);
    const length = byteLength ?? tensor.byteLength - byteOffset;
    if (!(byteOffset >= 0 && length >= 0 && byteOffset + length <= tensor.byteLength)) {
      throw new UsageError(`bytes ${byteOffset} … ${byteOffset + length} of ${name}, which has ${tensor.byteLength}`);
    }
    return source.read(tensor.byteOffset + byteOffset, length, into);
  }

  async readFloat32(name: string): Promise<Float32Array> {
    const { source, tensor } = this.#find(name);
    const bytes = await source.read(tensor.byteOffset, tensor.byteLength);
    try {
      return toFloat32(tensor.dtype, bytes);
    } catch (cause) {
      throw new FormatError({ file: source.name, field: name, problem: `${tensor.dtype} has no f32 form` }, { cause });
    }
  }

  readJson(fileName: string): Promise<unknown | undefined> {
    return readJsonFile(this.files, fileName);
  }

  async close(): Promise<void> {
    await Promise.all(this.sources.map((source) => source.close()));
    await this.files.close();
  }

  #find(name: string): PlacedTensor {
    const found = this.placed.get(name);
    if (found !== undefined) return found;
    throw new FormatError({
      file: this.location,
      field: name,
      problem: "no such tensor",
      hint: "The checkpoint does not fit the architecture its config.json names",
    });
  }
}
