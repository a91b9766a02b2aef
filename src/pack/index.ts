export {
  groupSize,
  type PackedFormatId,
  padded,
  type SparseFormatId,
  type WeightFormat,
  type WeightFormatId,
} from "./format.js";
export { packSparse, type SparseFormat, type SparsePacker } from "./sparseFormat.js";
export { isSparse, sparseFormats, valueTypeOf } from "./sparseFormats.js";
export { weightFormats } from "./weightFormats.js";
