import { FormatError } from "../../core/index.js";
import type { ByteSource } from "../byteSource.js";
import { refuseMistaken, tellingBytes } from "../mistakenFile.js";
import { Cursor } from "./cursor.js";
import { type GgmlType, ggmlTypeById, ggmlTypeName, ggmlTypes } from "./ggmlTypes.js";

export type MetadataValue = number | bigint | boolean | string | string[] | NumberArray;
/** An array of numbers as it lies in the file; of truth values, bytes. */
export type NumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** A tensor of a GGUF file and where its bytes lie. */
export interface GgufTensor {
  name: string;
  type: GgmlType;
  /** Row-major, outermost first: the reverse of the file's order. */
  shape: readonly number[];
  /** From the start of the file. */
  byteOffset: number;
  byteLength: number;
}

export interface GgufHeader {
  metadata: ReadonlyMap<string, MetadataValue>;
  tensors: ReadonlyMap<string, GgufTensor>;
}

/** Headers hold the vocabulary: some tens of megabytes at most. */
const maxHeaderBytes = 2 ** 28;
/** Bounds on what a header expands to; the largest known vocabulary has some 260,000 tokens and 600,000 merges. */
const maxTexts = 4_000_000;
const maxTensors = 1_000_000;
const maxKeys = 65_536;
const maxDimensions = 4;
const defaultAlignment = 32;
const arrayTypeId = 9;
const stringTypeId = 8;

/** Scalar types by their number in the file: size and reader. */
const scalars: ReadonlyMap<number, [bytes: number, read: (view: DataView, at: number) => number | bigint | boolean]> =
  new Map([
    [0, [1, (view, at) => view.getUint8(at)]],
    [1, [1, (view, at) => view.getInt8(at)]],
    [2, [2, (view, at) => view.getUint16(at, true)]],
    [3, [2, (view, at) => view.getInt16(at, true)]],
    [4, [4, (view, at) => view.getUint32(at, true)]],
    [5, [4, (view, at) => view.getInt32(at, true)]],
    [6, [4, (view, at) => view.getFloat32(at, true)]],
    [7, [1, (view, at) => view.getUint8(at) !== 0]],
    [10, [8, (view, at) => view.getBigUint64(at, true)]],
    [11, [8, (view, at) => view.getBigInt64(at, true)]],
    [12, [8, (view, at) => view.getFloat64(at, true)]],
  ]);

/**
 * Reads and checks the header of a GGUF file, version 2 or 3: metadata, and name, type, shape and place of every tensor.
 * Nothing after the header is read.
 * @throws FormatError naming the file, the field and the reason
 */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  const file = source.name;
  const cursor = new Cursor(source, maxHeaderBytes);
  const magic = await cursor.u32("magic");
  if (magic !== 0x46554747) {
    refuseMistaken(await source.read(0, Math.min(tellingBytes, source.byteLength)), file);
    throw new FormatError({ file, problem: "it does not begin with GGUF" });
  }
  const version = await cursor.u32("version");
  if (version !== 2 && version !== 3) {
    throw new FormatError({
      file,
      field: "version",
      problem: version % 2 ** 16 === 0 ? "big-endian numbers" : `version ${version}`,
      expected: "version 2 or 3, little-endian",
    });
  }
  const tensorCount = await countOf(cursor, "tensor count", 24, file, maxTensors);
  const metadataCount = await countOf(cursor, "metadata count", 13, file, maxKeys);

  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < metadataCount; i++) {
    const key = await cursor.text(`metadata ${i}`);
    if (metadata.has(key)) throw new FormatError({ file, field: key, problem: "the key occurs twice" });
    metadata.set(key, await readValue(cursor, await cursor.u32(key), key, file));
  }

  const placed: Omit<GgufTensor, "byteOffset">[] = [];
  const offsets: number[] = [];
  for (let i = 0; i < tensorCount; i++) {
    const { offset, ...tensor } = await readTensor(cursor, `tensor ${i}`, file);
    placed.push(tensor);
    offsets.push(offset);
  }
  const alignment = alignmentOf(metadata, file);
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = placed.map((tensor, i) => ({ ...tensor, byteOffset: dataStart + offsets[i] }));
  checkPlaces(tensors, dataStart, alignment, source);
  return { metadata, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) };
}

/** A count of things of at least `leastBytes` each, which must fit into the rest of the file. */
async function countOf(
  cursor: Cursor,
  field: string,
  leastBytes: number,
  file: string,
  limit = Number.POSITIVE_INFINITY,
): Promise<number> {
  const count = await cursor.u64(field);
  if (count * leastBytes > cursor.left) {
    throw new FormatError({ file, field, problem: `${count}, more than the file has room for` });
  }
  if (count > limit) throw new FormatError({ file, field, problem: `${count} of them`, expected: `at most ${limit}` });
  return count;
}

async function readValue(cursor: Cursor, type: number, key: string, file: string): Promise<MetadataValue> {
  if (type === stringTypeId) return cursor.text(key);
  const scalar = scalars.get(type);
  if (scalar !== undefined) return cursor.take(scalar[0], key, scalar[1]);
  if (type !== arrayTypeId) throw new FormatError({ file, field: key, problem: `value type ${type} is not known` });
  const elementType = await cursor.u32(key);
  if (elementType === arrayTypeId) throw new FormatError({ file, field: key, problem: "an array of arrays" });
  if (elementType === stringTypeId) {
    const count = await countOf(cursor, key, 8, file, maxTexts);
    const values: string[] = [];
    for (let i = 0; i < count; i++) values.push(await cursor.text(key));
    return values;
  }
  const size = scalars.get(elementType)?.[0];
  const toArray = arrays.get(elementType);
  if (size === undefined || toArray === undefined) {
    throw new FormatError({ file, field: key, problem: `an array of value type ${elementType}, which is not known` });
  }
  const count = await countOf(cursor, key, size, file);
  return cursor.take(count * size, key, (view, at) => {
    const bytes = new Uint8Array(count * size);
    bytes.set(new Uint8Array(view.buffer, view.byteOffset + at, bytes.length));
    return toArray(bytes.buffer);
  });
}

/** Arrays of numbers by the type of their elements, over a copy of their bytes; 64-bit integers become doubles. */
const arrays: ReadonlyMap<number, (bytes: ArrayBuffer) => NumberArray> = new Map<
  number,
  (bytes: ArrayBuffer) => NumberArray
>([
  [0, (bytes) => new Uint8Array(bytes)],
  [1, (bytes) => new Int8Array(bytes)],
  [2, (bytes) => new Uint16Array(bytes)],
  [3, (bytes) => new Int16Array(bytes)],
  [4, (bytes) => new Uint32Array(bytes)],
  [5, (bytes) => new Int32Array(bytes)],
  [6, (bytes) => new Float32Array(bytes)],
  [7, (bytes) => new Uint8Array(bytes)],
  [10, (bytes) => Float64Array.from(new BigUint64Array(bytes), Number)],
  [11, (bytes) => Float64Array.from(new BigInt64Array(bytes), Number)],
  [12, (bytes) => new Float64Array(bytes)],
]);

async function readTensor(cursor: Cursor, field: string, file: string) {
  const name = await cursor.text(field);
  const fail = (problem: string, expected?: string) => new FormatError({ file, field: name, problem, expected });
  const dimensions = await cursor.u32(name);
  if (dimensions > maxDimensions) throw fail(`${dimensions} dimensions`, `at most ${maxDimensions}`);
  const shape: number[] = [];
  for (let d = 0; d < dimensions; d++) shape.unshift(await cursor.u64(name));
  const typeId = await cursor.u32(name);
  const type = ggmlTypeById.get(typeId);
  if (type === undefined) {
    const names = ggmlTypes.map(({ name }) => name).join(", ");
    throw fail(
      `type ${ggmlTypeName(typeId)} is not read`,
      `one of ${names}; Q8_0, Q6_K and F16 are offered for most models`,
    );
  }
  const rowLength = shape.at(-1) ?? 1;
  if (rowLength % type.blockSize !== 0) {
    throw fail(`rows of ${rowLength} entries in ${type.name}`, `a multiple of ${type.blockSize}`);
  }
  let byteLength = type.blockBytes / type.blockSize;
  for (const size of shape) byteLength *= size;
  if (!Number.isSafeInteger(byteLength) || shape.some((size) => size === 0)) throw fail(`shape [${shape.join(", ")}]`);
  return { name, type, shape, byteLength, offset: await cursor.u64(name) };
}

function alignmentOf(metadata: ReadonlyMap<string, MetadataValue>, file: string): number {
  const alignment = metadata.get("general.alignment") ?? defaultAlignment;
  if (
    typeof alignment === "number" &&
    alignment >= 8 &&
    alignment <= 2 ** 20 &&
    Number.isInteger(Math.log2(alignment))
  ) {
    return alignment;
  }
  throw new FormatError({
    file,
    field: "general.alignment",
    problem: String(alignment).slice(0, 40),
    expected: "a power of two from 8 to 2²⁰",
  });
}

/** Tensors must lie inside the file, aligned, apart from each other and have different names. */
function checkPlaces(tensors: readonly GgufTensor[], dataStart: number, alignment: number, source: ByteSource): void {
  const file = source.name;
  const names = new Set<string>();
  let end = dataStart;
  for (const { name, byteOffset, byteLength } of tensors.toSorted((a, b) => a.byteOffset - b.byteOffset)) {
    const fail = (problem: string) =>
      new FormatError({ file, field: name, problem, hint: "The file may be cut short" });
    if (names.has(name)) throw fail("the name occurs twice");
    names.add(name);
    if (byteOffset % alignment !== 0) throw fail(`its bytes begin at ${byteOffset}, no multiple of ${alignment}`);
    if (byteOffset < end) throw fail("its bytes overlap those of another tensor");
    end = byteOffset + byteLength;
    if (end > source.byteLength) throw fail(`its bytes end at ${end}, the file at ${source.byteLength}`);
  }
}
