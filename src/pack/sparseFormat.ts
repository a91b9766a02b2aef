import { FormatError } from "../core/index.js";
import { groupSize, padded, type SparseFormatId, type WeightFormatId } from "./format.js";
import { weightFormats } from "./weightFormats.js";

/**
 * Formats that leave zeros out. A sparse matrix is made from the codes of a dense format (`value`), which decides how
 * weights are rounded; those whose code stands for 0 are the zeros. So a sparse product gives what a dense one of the same
 * value type gives.
 *
 * They are input-major too: what belongs to one input, or to a few neighbouring ones, is one run of bytes.
 */
export interface SparseFormat {
  readonly id: SparseFormatId;
  /** The dense format its codes come from. */
  readonly value: WeightFormatId;
  packer(rows: number, cols: number): SparsePacker;
  /** The f32 values that the packed bytes stand for, row-major [rows, cols]. @throws FormatError for any damage. */
  unpack(bytes: Uint8Array, rows: number, cols: number): Float32Array;
  /**
   * Bytes that a matrix-vector product reads when it keeps the inputs for which `kept` holds; all of `bytes` but the
   * tables of positions when it keeps all.
   */
  bytesRead(bytes: Uint8Array, rows: number, cols: number, kept: (input: number) => boolean): number;
  /** Size to expect of a matrix whose non-zeros lie anywhere, at this share of non-zeros. */
  expectedBytes(rows: number, cols: number, density: number): number;
}

/**
 * Packs a matrix that is shown twice, a few rows at a time: first to measure, then to write. A chunk is rows [start, start +
 * count) in the dense format `value`, packed as a matrix of `count` rows; `start` is a multiple of 32.
 */
export interface SparsePacker {
  /** @throws UsageError when the format cannot hold the pattern (2:4) */
  measure(chunk: Uint8Array, start: number, count: number): void;
  /** Exact size, known once all rows were measured. */
  readonly byteLength: number;
  /** @param into zeroed, `byteLength` long; it may be a view of shared memory */
  write(chunk: Uint8Array, start: number, count: number, into: Uint8Array): void;
}

/** @param weights f32 row-major [rows, cols]; @param scales as in `WeightFormat.pack` */
export function packSparse(
  format: SparseFormat,
  weights: Float32Array,
  rows: number,
  cols: number,
  scales?: Float32Array,
): Uint8Array {
  const dense = weightFormats[format.value].pack(weights, rows, cols, scales);
  const packer = format.packer(rows, cols);
  packer.measure(dense, 0, rows);
  const out = new Uint8Array(packer.byteLength);
  packer.write(dense, 0, rows, out);
  return out;
}

/** How sparse formats see the codes of a dense one. */
export interface ValueType {
  readonly id: "bf16" | "q8" | "q4";
  /** Bits of one code. */
  readonly bits: 16 | 8 | 4;
  /** The code of 0. */
  readonly zero: number;
  readonly hasScales: boolean;
}

export const valueTypes = {
  bf16: { id: "bf16", bits: 16, zero: 0, hasScales: false },
  q8: { id: "q8", bits: 8, zero: 128, hasScales: true },
  q4: { id: "q4", bits: 4, zero: 8, hasScales: true },
} as const satisfies Record<string, ValueType>;

/** A run of rows in a dense format, read column by column. */
export class DenseChunk {
  readonly #bytes: Uint8Array;
  readonly #stride: number;
  readonly #type: ValueType;
  readonly #codes: Uint16Array;

  constructor(bytes: Uint8Array, count: number, type: ValueType) {
    this.#bytes = bytes;
    this.#stride = padded(count);
    this.#type = type;
    this.#codes = new Uint16Array(this.#stride);
  }

  /** Codes of one input in the order of the rows, padded with zeros to a multiple of 32; valid until the next call. -0 is 0. */
  column(c: number): Uint16Array {
    const { bits } = this.#type;
    const bytes = this.#bytes;
    const stride = this.#stride;
    const codes = this.#codes;
    const columnBytes = (stride * bits) / 8;
    if (bits === 16) {
      for (let r = 0, at = c * columnBytes; r < stride; r += 8, at += 16) {
        for (let k = 0; k < 4; k++) {
          const low = bytes[at + 4 * k] | (bytes[at + 4 * k + 1] << 8);
          const high = bytes[at + 4 * k + 2] | (bytes[at + 4 * k + 3] << 8);
          codes[r + k] = low === 0x8000 ? 0 : low;
          codes[r + k + 4] = high === 0x8000 ? 0 : high;
        }
      }
      return codes;
    }
    const at = this.#group(Math.floor(c / groupSize)) + 2 * stride + (c % groupSize) * columnBytes;
    if (bits === 8) {
      for (let r = 0; r < stride; r++) codes[r] = bytes[at + r];
      return codes;
    }
    for (let r = 0; r < stride; r++) codes[r] = (bytes[at + ((r >> 5) << 4) + (r & 15)] >> ((r & 16) >> 2)) & 15;
    return codes;
  }

  /** The scales of a group of 32 inputs as the dense formats hold them: bf16, in the order of `interleaved8`. */
  scales(group: number): Uint8Array {
    const at = this.#group(group);
    return this.#bytes.subarray(at, at + 2 * this.#stride);
  }

  #group(group: number): number {
    return group * (2 * this.#stride + (groupSize * this.#stride * this.#type.bits) / 8);
  }
}

/** @throws FormatError naming the format and the shape */
export function damaged(
  id: SparseFormatId,
  rows: number,
  cols: number,
  problem: string,
  expected?: string,
): FormatError {
  return new FormatError({ file: `${id} matrix`, problem: `${rows} × ${cols}: ${problem}`, expected });
}
