import { bitmaskBf16, bitmaskQ4, bitmaskQ8 } from "./bitmask.js";
import { blockBf16, blockQ8 } from "./block.js";
import { csrBf16 } from "./csr.js";
import type { PackedFormatId, SparseFormatId, WeightFormatId } from "./format.js";
import { int8Mixed } from "./int8Mixed.js";
import type { SparseFormat } from "./sparseFormat.js";
import { tiledCslBf16 } from "./tiledCsl.js";
import { twoOfFourBf16, twoOfFourQ4, twoOfFourQ8 } from "./twoOfFour.js";

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

export const isSparse = (format: PackedFormatId): format is SparseFormatId => Object.hasOwn(sparseFormats, format);

/** The dense format whose codes a format holds; a dense one is its own. */
export const valueTypeOf = (format: PackedFormatId): WeightFormatId =>
  isSparse(format) ? sparseFormats[format].value : format;
