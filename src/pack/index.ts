export {
  groupSize,
  type PackedFormatId,
  padded,
  type SparseFormatId,
  type WeightFormat,
  type WeightFormatId,
} from "./format.js";
export { packSparse, type SparseFormat, type SparsePacker } from "./formats/sparseFormat.js";
export { type StructureId, structureIds, type ZeroPattern, type ZeroShares } from "./formats/structure.js";
export { packRows, rowBytes, unpackRow } from "./rows.js";
export { isSparse, packAs, roundsInputs, sparseFormats, unpackAs, valueTypeOf } from "./sparseFormats.js";
export { weightFormats } from "./weightFormats.js";
