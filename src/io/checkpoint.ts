import { parseModelConfig } from "../arch/index.js";
import { FormatError, UsageError } from "../core/index.js";
import { dtypeBytes, elementCount, toFloat32 } from "../tensor/index.js";
import { rowsOfShape } from "../tensor/internal.js";
import { readArtifact } from "./artifact.js";
import type { Artifact } from "./artifactSchema.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { checkFinite } from "./checkFinite.js";
import { type EncodedTensor, type LogicalTensor, openEncoded, partNamesOf, type RawTensors } from "./encoding/index.js";
import { ggufFileName } from "./gguf/names.js";
import { isJsonObject, readJsonFile } from "./json.js";
import { hasOwnHead } from "./ownHead.js";
import { indexFileName, type PlacedTensor, placeTensors, singleFileName } from "./placeTensors.js";
import { refuseQuantizedNames } from "./quantized/marks.js";
import { readRecordFile } from "./quantized/recordFiles.js";
import type { QuantizationRecord } from "./quantized/sourceFormat.js";
import { type Storage, takeStorage } from "./takeStorage.js";
import type { Warning } from "./warning.js";

/**
 * A model directory opened for reading: its config and its tensors, read by range. Tensors are logical ones: however they
 * are encoded on disk, they show the name, dtype and shape that the model knows, and reading decodes.
 */
export interface Checkpoint {
  /** For messages: the directory, URL or Hub id. */
  readonly location: string;
  readonly files: ModelFiles;
  /** `config.json`, parsed and not yet checked. What it says of how weights are stored is left out: that is undone here. */
  readonly config: unknown;
  /** How another tool has quantised the weights, in words; undefined where none has. */
  readonly quantizedBy?: string;
  /** `rarefy.json`, checked; undefined when there is none. */
  readonly artifact?: Artifact;
  readonly tensors: ReadonlyMap<string, LogicalTensor>;
  /** What is odd about the files and does not keep the model from running. */
  readonly warnings: readonly Warning[];
  /**
   * Bytes of a tensor, little-endian values of its dtype, row-major: `byteLength` of them (default: the rest) from
   * `byteOffset` (default 0). Of an encoded tensor whole rows are decoded, so ranges of whole rows cost least.
   * @param into filled and returned when given; must be `byteLength` long. It may be a view of shared memory.
   * @throws FormatError when there is no such tensor or the file ends early, UsageError when the range leaves the tensor.
   */
  read(name: string, byteOffset?: number, byteLength?: number, into?: Uint8Array): Promise<Uint8Array>;
  /** A whole tensor widened to f32, row-major. @throws FormatError, also for a dtype without f32 form, NaN or infinity. */
  readFloat32(name: string): Promise<Float32Array>;
  /**
   * The scales of rows [rowStart, rowStart + count) of a tensor that has a `grid`: f32 [count, ⌈cols / groupSize⌉].
   * @throws FormatError, UsageError when the tensor has no grid or the range leaves it
   */
  readScales(name: string, rowStart: number, count: number): Promise<Float32Array>;
  /** Another JSON file of the directory; undefined when there is none. */
  readJson(fileName: string): Promise<unknown | undefined>;
  close(): Promise<void>;
}

/**
 * Opens a checkpoint: `config.json` with `model.safetensors`, or with shards named by `model.safetensors.index.json`, or with
 * `model.gguf`. Reads the headers of all files, no tensor bytes.
 * @throws FormatError
 */
export async function openCheckpoint(files: ModelFiles): Promise<Checkpoint> {
  const raw = await readJsonFile(files, "config.json");
  if (raw === undefined) {
    throw new FormatError({
      file: files.location,
      problem: "there is no config.json",
      hint: "Give a model directory in Hugging Face layout",
    });
  }
  const artifact = await readArtifact({ files, location: files.location });
  const storage = takeStorage(raw, `${files.location}/config.json`);
  const { config } = storage;
  const sources: ByteSource[] = [];
  try {
    const tensors = await openTensors(files, storage, artifact, sources);
    const checkpoint = new FileCheckpoint(files, config, artifact, sources, tensors);
    refuseQuantizedNames(checkpoint.tensors.keys(), files.location);
    if (!(await hasOwnHead(checkpoint))) return checkpoint;
    const warnings: Warning[] = [];
    if (isJsonObject(config) && config.tie_word_embeddings === true) {
      warnings.push({
        file: `${files.location}/config.json`,
        field: "tie_word_embeddings",
        problem:
          "it is true, and the weights hold an lm_head.weight with other values than the embedding; that one is used",
      });
    }
    const untied = { ...(config as object), tie_word_embeddings: false };
    return new FileCheckpoint(files, untied, artifact, sources, tensors, warnings);
  } catch (error) {
    await Promise.all(sources.map((source) => source.close()));
    throw error;
  }
}

interface Tensors {
  /** Plain values. */
  placed: Map<string, PlacedTensor>;
  encoded: Map<string, EncodedTensor>;
  quantizedBy?: string;
}

async function openTensors(
  files: ModelFiles,
  storage: Storage,
  artifact: Artifact | undefined,
  sources: ByteSource[],
): Promise<Tensors> {
  const placed = await placeTensors(files, sources);
  if (placed !== undefined) return openEncodings(files, placed, artifact, storage);
  const gguf = await files.open(ggufFileName);
  if (gguf !== undefined) {
    sources.push(gguf);
    const { openGguf } = await import("./gguf/open.js");
    return openGguf(files, gguf, sources, parseModelConfig(storage.config, `${files.location}/config.json`));
  }
  throw new FormatError({
    file: files.location,
    problem: `there is neither ${singleFileName} nor ${indexFileName} nor ${ggufFileName}`,
    hint: "Only safetensors and GGUF weights are read; convert other formats first",
  });
}

/**
 * Takes the parts of encoded tensors out of `placed` and opens the tensors they make up: those that rarefy.json declares, those
 * of a sparse format of compressed-tensors, and those that another tool has quantised.
 */
async function openEncodings(
  files: ModelFiles,
  placed: Map<string, PlacedTensor>,
  artifact: Artifact | undefined,
  { sparse, quantized }: Storage,
): Promise<Tensors> {
  const all = new Map(placed);
  const raw: RawTensors = {
    location: files.location,
    info: (name) => all.get(name)?.tensor,
    read(name, byteOffset, byteLength) {
      const { source, tensor } = all.get(name)!;
      return source.read(tensor.byteOffset + byteOffset, byteLength);
    },
  };
  const encoded = new Map<string, EncodedTensor>();
  for (const [name, declaration] of Object.entries(artifact?.tensors ?? {})) {
    encoded.set(name, openEncoded(name, declaration, raw));
    for (const part of partNamesOf(name, declaration)) placed.delete(part);
  }
  const take = (found: { encoded: Map<string, EncodedTensor>; used: Set<string> }) => {
    for (const [name, tensor] of found.encoded) encoded.set(name, tensor);
    for (const name of found.used) placed.delete(name);
  };
  // The readers of other tools' formats are loaded where a model needs them: a page rarely does.
  if (sparse !== undefined) {
    const { openCompressedTensors } = await import("./compressedTensors/open.js");
    take(await openCompressedTensors(sparse, all.keys(), raw));
  }
  const found = await quantizationOf(files, quantized, placed.keys());
  if (found === undefined) return { placed, encoded };
  const { openQuantized, quantizedSource } = await import("./quantized/open.js");
  const source = quantizedSource(found.record, found.file);
  take(
    await openQuantized(
      source,
      raw,
      Array.from(placed.values(), ({ tensor }) => tensor),
    ),
  );
  return { placed, encoded, quantizedBy: source.description };
}

/** How the weights are quantised: by the record of the config or, where it has none, by a file beside it. */
async function quantizationOf(files: ModelFiles, record: QuantizationRecord | undefined, names: Iterable<string>) {
  if (record !== undefined) return { record, file: `${files.location}/config.json` };
  return [...names].some((name) => name.endsWith(".qweight")) ? readRecordFile(files) : undefined;
}

class FileCheckpoint implements Checkpoint {
  readonly location: string;
  readonly tensors: ReadonlyMap<string, LogicalTensor>;
  readonly placed: ReadonlyMap<string, PlacedTensor>;
  readonly encoded: ReadonlyMap<string, EncodedTensor>;
  readonly quantizedBy?: string;

  constructor(
    readonly files: ModelFiles,
    readonly config: unknown,
    readonly artifact: Artifact | undefined,
    readonly sources: readonly ByteSource[],
    { placed, encoded, quantizedBy }: Tensors,
    readonly warnings: readonly Warning[] = [],
  ) {
    this.location = files.location;
    this.placed = placed;
    this.encoded = encoded;
    this.quantizedBy = quantizedBy;
    const tensors = new Map<string, LogicalTensor>();
    for (const [name, { tensor }] of placed) tensors.set(name, tensor);
    for (const [name, { info }] of encoded) tensors.set(name, info);
    this.tensors = tensors;
  }

  async read(name: string, byteOffset = 0, byteLength?: number, into?: Uint8Array): Promise<Uint8Array> {
    const { dtype, shape } = this.#find(name);
    const rowBytes = rowsOfShape(shape).cols * dtypeBytes[dtype];
    const total = elementCount(shape) * dtypeBytes[dtype];
    const length = byteLength ?? total - byteOffset;
    if (!(byteOffset >= 0 && length >= 0 && byteOffset + length <= total)) {
      throw new UsageError(`bytes ${byteOffset} … ${byteOffset + length} of ${name}, which has ${total}`);
    }
    const plain = this.placed.get(name);
    if (plain !== undefined) return plain.source.read(plain.tensor.byteOffset + byteOffset, length, into);

    const first = Math.floor(byteOffset / rowBytes);
    const rows = await this.encoded.get(name)!.readRows(first, Math.ceil((byteOffset + length) / rowBytes) - first);
    const from = byteOffset - first * rowBytes;
    const bytes = rows.subarray(from, from + length);
    into?.set(bytes);
    return into ?? bytes;
  }

  async readFloat32(name: string): Promise<Float32Array> {
    const tensor = this.#find(name);
    const { dtype } = tensor;
    const bytes = await this.read(name);
    const file = this.placed.get(name)?.source.name ?? this.location;
    checkFinite(file, tensor, bytes);
    try {
      return toFloat32(dtype, bytes);
    } catch (cause) {
      throw new FormatError({ file, field: name, problem: `${dtype} has no f32 form` }, { cause });
    }
  }

  async readScales(name: string, rowStart: number, count: number): Promise<Float32Array> {
    const { shape } = this.#find(name);
    const encoded = this.encoded.get(name);
    if (encoded?.readScales === undefined) throw new UsageError(`${name} has no grid`);
    if (!(rowStart >= 0 && count >= 0 && rowStart + count <= shape[0])) {
      throw new UsageError(`rows ${rowStart} … ${rowStart + count} of ${name}, which has ${shape[0]}`);
    }
    return encoded.readScales(rowStart, count);
  }

  readJson(fileName: string): Promise<unknown | undefined> {
    return readJsonFile(this.files, fileName);
  }

  async close(): Promise<void> {
    await Promise.all(this.sources.map((source) => source.close()));
    await this.files.close();
  }

  #find(name: string): LogicalTensor {
    const found = this.tensors.get(name);
    if (found !== undefined) return found;
    throw new FormatError({
      file: this.location,
      field: name,
      problem: "no such tensor",
      hint: "The checkpoint does not fit the architecture its config.json names",
    });
  }
}
