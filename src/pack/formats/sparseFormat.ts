import { FormatError } from "../../core/index.js";
import { groupSize, padded, type SparseFormatId, type WeightFormatId } from "../format.js";
import { weightFormats } from "../weightFormats.js";
import type { StructureId, ZeroPattern } from "./structure.js";

/**
 * Formats that leave zeros out. A sparse matrix is made from the codes of a dense format (`value`), which decides how
 * weights are rounded; those whose code stands for 0 are the zeros. So a sparse product gives what a dense one of the same
 * value type gives.
 *
 * They are input-major too: what belongs to one input, or to a few neighbouring ones, is one run of bytes.
 */
export interface SparseFormat extends SparseDescription {
  /** The dense format its codes come from. */
  readonly value: WeightFormatId;
  /** The dense format that products treat its codes as, where that is not `value`. */
  readonly multipliedAs?: WeightFormatId;
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

/** What tells one sparse format from another, whatever its codes. */
export interface SparseDescription {
  readonly id: SparseFormatId;
  readonly structure: StructureId;
  /** The zeros that it leaves out; undefined where it leaves out none. */
  readonly pattern?: ZeroPattern;
  /** Shares of weights, or of what the pattern leaves out, at which products are timed; what lies between is interpolated. */
  readonly timedAt: readonly number[];
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
  /** A 1 in the lowest bit of every code of a 32-bit word of codes. */
  readonly ones: number;
  /** Those of the codes that are not 0 (-0 is). */
  nonZeros(word: number): number;
}

export const valueTypes = {
  bf16: {
    id: "bf16",
    bits: 16,
    zero: 0,
    hasScales: false,
    ones: 0x00010001,
    nonZeros: (word) => (((word & 0x7fff7fff) + 0x7fff7fff) >>> 15) & 0x00010001,
  },
  q8: {
    id: "q8",
    bits: 8,
    zero: 128,
    hasScales: true,
    ones: 0x01010101,
    nonZeros(word) {
      const x = word ^ 0x80808080;
      return ((((x & 0x7f7f7f7f) + 0x7f7f7f7f) | x) >>> 7) & 0x01010101;
    },
  },
  q4: {
    id: "q4",
    bits: 4,
    zero: 8,
    hasScales: true,
    ones: 0x11111111,
    nonZeros(word) {
      const x = word ^ 0x88888888;
      return (x | (x >>> 1) | (x >>> 2) | (x >>> 3)) & 0x11111111;
    },
  },
} as const satisfies Record<string, ValueType>;

/** Rows that lie together in all dense formats. */
const rowsOfBlock = 32;

/** A run of rows in a dense format, read column by column. Loops over weights go over 32-bit words of codes where they can. */
export class DenseChunk {
  /** Rows, padded to a multiple of 32. */
  readonly rows: number;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #type: ValueType;
  readonly #codes: Uint16Array;

  constructor(bytes: Uint8Array, count: number, type: ValueType) {
    this.rows = padded(count);
    this.#bytes = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
    this.#words = new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength >> 2);
    this.#type = type;
    this.#codes = new Uint16Array(this.rows);
  }

  /** Codes of one input in the order of the rows, padded with zeros to a multiple of 32; valid until the next call. -0 is 0. */
  column(c: number): Uint16Array {
    const { bits } = this.#type;
    const words = this.#words;
    const codes = this.#codes;
    const first = this.#columnAt(c);
    if (bits === 16) {
      for (let r = 0, at = first; r < codes.length; r += 8, at += 4) {
        for (let k = 0; k < 4; k++) {
          const word = words[at + k];
          const low = word & 0xffff;
          const high = word >>> 16;
          codes[r + k] = low === 0x8000 ? 0 : low;
          codes[r + k + 4] = high === 0x8000 ? 0 : high;
        }
      }
      return codes;
    }
    const bytes = this.#bytes;
    if (bits === 8) {
      for (let r = 0, at = first * 4; r < codes.length; r++) codes[r] = bytes[at + r];
      return codes;
    }
    for (let r = 0, at = first * 4; r < codes.length; r += rowsOfBlock, at += rowsOfBlock / 2) {
      for (let k = 0; k < 16; k++) {
        codes[r + k] = bytes[at + k] & 15;
        codes[r + k + 16] = bytes[at + k] >> 4;
      }
    }
    return codes;
  }

  /** How many codes of one input are not 0, for every 32 rows. */
  countColumn(c: number, into: Uint8Array): void {
    const { bits } = this.#type;
    const { nonZeros }: ValueType = this.#type;
    const words = this.#words;
    const wordsOfBlock = bits;
    for (let b = 0, at = this.#columnAt(c); b < this.rows / rowsOfBlock; b++, at += wordsOfBlock) {
      // At most 16 in a half, 8 in a byte, 4 in a nibble: no sum runs over.
      let sums = 0;
      for (let i = 0; i < wordsOfBlock; i++) sums += nonZeros(words[at + i]);
      if (bits === 4) sums = (sums & 0x0f0f0f0f) + ((sums >>> 4) & 0x0f0f0f0f);
      into[b] = bits === 16 ? (sums & 0xffff) + (sums >>> 16) : Math.imul(sums, 0x01010101) >>> 24;
    }
  }

  /** Whether a row has more than two codes that are not 0 among inputs [first, last). At most four. */
  hasMoreThanTwo(first: number, last: number): boolean {
    const { bits, ones, nonZeros }: ValueType = this.#type;
    const words = this.#words;
    const count = (this.rows / 32) * bits;
    const [a, b, c, d] = Array.from({ length: 4 }, (_, i) => (first + i < last ? this.#columnAt(first + i) : -1));
    for (let i = 0; i < count; i++) {
      let sums = nonZeros(words[a + i]);
      if (b >= 0) sums += nonZeros(words[b + i]);
      if (c >= 0) sums += nonZeros(words[c + i]);
      if (d >= 0) sums += nonZeros(words[d + i]);
      // 3 + 1 and 4 + 1 have bit 2.
      if (((sums + ones) & (ones << 2)) !== 0) return true;
    }
    return false;
  }

  /** The scales of a group of 32 inputs as the dense formats hold them: bf16, in the order of `interleaved8`. */
  scales(group: number): Uint8Array {
    const at = this.#groupAt(group);
    return this.#bytes.subarray(at, at + 2 * this.rows);
  }

  /** Index of the first word of a column. */
  #columnAt(c: number): number {
    const { bits } = this.#type;
    const columnWords = (this.rows * bits) / 32;
    if (bits === 16) return c * columnWords;
    return (this.#groupAt(Math.floor(c / groupSize)) + 2 * this.rows) / 4 + (c % groupSize) * columnWords;
  }

  #groupAt(group: number): number {
    return group * (2 * this.rows + (groupSize * this.rows * this.#type.bits) / 8);
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
