import { FormatError } from "../core/index.js";

/**
 * Packed weight formats. A matrix W [rows = out, cols = in] is stored input-major: everything that input i multiplies
 * lies together, so that the column of a zero input is one run of bytes that need not be read, and a dense product reads
 * the same bytes from end to end. One layout serves dense and input-sparse products and the tiles of matrix-matrix ones.
 *
 * Common to all formats: `paddedRows` = rows rounded up to 32, `paddedCols` = cols rounded up to 32; padding holds the
 * code of 0. Numbers are little-endian.
 */
export type WeightFormatId = "f32" | "bf16" | "q8" | "q4";

/** Formats that leave zeros out, `<structure>-<value>`, and mixed precision; see formats/sparseFormat.ts. */
export type SparseFormatId =
  | "bitmask-bf16"
  | "bitmask-q8"
  | "bitmask-q4"
  | "2:4-bf16"
  | "2:4-q8"
  | "2:4-q4"
  | "csr-bf16"
  | "block-bf16"
  | "block-q8"
  | "tiled-csl-bf16"
  | "int8-mixed";

/** Name of any packed format, dense or without its zeros. */
export type PackedFormatId = WeightFormatId | SparseFormatId;

/** A packed format of all weights of a matrix, zeros included. docs/add-a-weight-format.md. */
export interface WeightFormat {
  readonly id: WeightFormatId;
  /** Mean bits per weight, scales included, padding left out. */
  readonly bitsPerWeight: number;
  /** Exact size of a packed [rows, cols] matrix in bytes. */
  byteLength(rows: number, cols: number): number;
  /** Bytes of the codes of one column (input) of a matrix with `rows` rows: what a skipped input saves. */
  columnBytes(rows: number): number;
  /** Bytes of the scales that the columns of one group share; 0 in formats without scales. */
  groupScaleBytes(rows: number): number;
  /**
   * @param weights f32 row-major [rows, cols]
   * @param scales f32 [rows, ⌈cols / 32⌉] of the grid that the weights lie on, for q8 and q4: see `quantized`
   */
  pack(weights: Float32Array, rows: number, cols: number, scales?: Float32Array): Uint8Array;
  /** The f32 values that the packed bytes stand for, row-major [rows, cols]. @throws FormatError on a wrong length. */
  unpack(bytes: Uint8Array, rows: number, cols: number): Float32Array;
}

/** Rows and columns are padded to this; it is also the number of consecutive inputs that share a scale in q8 and q4. */
export const groupSize = 32;

/** The next multiple of `groupSize`: rows or columns of a packed matrix, padding included. */
export const padded = (n: number): number => Math.ceil(n / groupSize) * groupSize;

export function checkLength(format: WeightFormat, bytes: Uint8Array, rows: number, cols: number): void {
  const expected = format.byteLength(rows, cols);
  if (bytes.byteLength === expected) return;
  throw new FormatError({
    file: `${format.id} matrix`,
    problem: `${bytes.byteLength} bytes for ${rows} × ${cols}`,
    expected: `${expected} bytes`,
  });
}
