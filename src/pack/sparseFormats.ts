import { groupSize, type PackedFormatId, type SparseFormatId, type WeightFormatId } from "./format.js";
import { bitmaskBf16, bitmaskQ4, bitmaskQ8 } from "./formats/bitmask.js";
import { blockBf16, blockQ8 } from "./formats/block.js";
import { csrBf16 } from "./formats/csr.js";
import { int8Mixed } from "./formats/int8Mixed.js";
import { packSparse, type SparseFormat } from "./formats/sparseFormat.js";
import { tiledCslBf16 } from "./formats/tiledCsl.js";
import { twoOfFourBf16, twoOfFourQ4, twoOfFourQ8 } from "./formats/twoOfFour.js";
import { weightFormats } from "./weightFormats.js";

/** Every format that leaves zeros out. */
export const sparseFormats: Readonly<Record<SparseFormatId, SparseFormat>> = {
  "bitmask-bf16": bitmaskBf16,
  "bitmask-q8": bitmaskQ8,
  "bitmask-q4": bitmaskQ4,
  "2:4-bf16": twoOfFourBf16,
  "2:4-q8": twoOfFourQ8,
  "2:4-q4": twoOfFourQ4,
  "csr-bf16": csrBf16,
  "block-bf16": blockBf16,
  "block-q8": blockQ8,
  "tiled-csl-bf16": tiledCslBf16,
  "int8-mixed": int8Mixed,
};

/** Packs a matrix in any format. @param weights f32 row-major [rows, cols]; @param scales as in `WeightFormat.pack` */
export const packAs = (
  format: PackedFormatId,
  weights: Float32Array,
  rows: number,
  cols: number,
  scales?: Float32Array,
): Uint8Array =>
  isSparse(format)
    ? packSparse(sparseFormats[format], weights, rows, cols, scales)
    : weightFormats[format].pack(weights, rows, cols, scales);

/** Undoes it. @throws FormatError for damage */
export const unpackAs = (format: PackedFormatId, bytes: Uint8Array, rows: number, cols: number): Float32Array =>
  (isSparse(format) ? sparseFormats[format] : weightFormats[format]).unpack(bytes, rows, cols);

/** Whether a packed format leaves zeros out. */
export const isSparse = (format: PackedFormatId): format is SparseFormatId => Object.hasOwn(sparseFormats, format);

/** Whether products with a format round their inputs to 8 bits: those with scaled codes. */
export const roundsInputs = (format: PackedFormatId): boolean => {
  const like = isSparse(format) ? (sparseFormats[format].multipliedAs ?? sparseFormats[format].value) : format;
  return weightFormats[like].groupScaleBytes(groupSize) > 0;
};

/** The dense format whose codes a format holds; a dense one is its own. */
export const valueTypeOf = (format: PackedFormatId): WeightFormatId =>
  isSparse(format) ? sparseFormats[format].value : format;
