import type { GgmlType } from "./ggmlTypes.js";

/** A value to be written with its type: GGUF readers ask for keys by type. */
export type TypedValue =
  | { u32: number }
  | { f32: number }
  | { bool: boolean }
  | { string: string }
  | { strings: readonly string[] }
  | { f32s: readonly number[] }
  | { i32s: readonly number[] };

export interface TensorPlan {
  name: string;
  type: GgmlType;
  /** Row-major, outermost first. */
  shape: readonly number[];
  /** From the start of the data. */
  offset: number;
}

const alignment = 32;
export const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** A GGUF header, version 3, padded so that the data after it begin aligned. */
export function headerBytes(metadata: ReadonlyMap<string, TypedValue>, tensors: readonly TensorPlan[]): Uint8Array {
  const out = new Writer();
  out.u32(0x46554747);
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.text(key);
    writeValue(out, value);
  }
  for (const { name, type, shape, offset } of tensors) {
    out.text(name);
    out.u32(shape.length);
    for (const size of shape.toReversed()) out.u64(size);
    out.u32(type.id);
    out.u64(offset);
  }
  return out.padded();
}

/** Type numbers of the file format. */
const ids = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

function writeValue(out: Writer, value: TypedValue): void {
  const array = <T>(type: number, items: readonly T[], write: (item: T) => void) => {
    out.u32(ids.array);
    out.u32(type);
    out.u64(items.length);
    for (const item of items) write(item);
  };
  if ("strings" in value) array(ids.string, value.strings, (item) => out.text(item));
  else if ("f32s" in value) array(ids.f32, value.f32s, (item) => out.f32(item));
  else if ("i32s" in value) array(ids.i32, value.i32s, (item) => out.i32(item));
  else if ("string" in value) {
    out.u32(ids.string);
    out.text(value.string);
  } else if ("bool" in value) {
    out.u32(ids.bool);
    out.bytes(Uint8Array.of(value.bool ? 1 : 0));
  } else if ("f32" in value) {
    out.u32(ids.f32);
    out.f32(value.f32);
  } else {
    out.u32(ids.u32);
    out.u32(value.u32);
  }
}

/** Bytes that grow as they are written, little-endian. */
class Writer {
  #bytes = new Uint8Array(2 ** 16);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  u32(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
  }

  i32(value: number): void {
    const at = this.#grow(4);
    this.#view.setInt32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  f32(value: number): void {
    const at = this.#grow(4);
    this.#view.setFloat32(at, value, true);
  }

  text(value: string): void {
    const bytes = encoder.encode(value);
    this.u64(bytes.byteLength);
    this.bytes(bytes);
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#grow(bytes.byteLength);
    this.#bytes.set(bytes, at);
  }

  padded(): Uint8Array {
    this.#grow(aligned(this.#length) - this.#length);
    return this.#bytes.slice(0, this.#length);
  }

  /** Makes room for `count` bytes, in new arrays where the old ones are full. @returns where they begin */
  #grow(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.byteLength) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.byteLength));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

const encoder = new TextEncoder();
