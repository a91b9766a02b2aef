import {
  isSparse,
  type PackedFormatId,
  type StructureId,
  sparseFormats,
  type WeightFormatId,
} from "../../pack/index.js";
import * as layout from "./layout.js";

const valueCodes: Readonly<Record<WeightFormatId, number>> = {
  f32: layout.formatF32,
  bf16: layout.formatBf16,
  q8: layout.formatQ8,
  q4: layout.formatQ4,
};

const structureCodes: Readonly<Record<StructureId, number>> = {
  bitmask: layout.structureBitmask,
  "2:4": layout.structureTwoOfFour,
  csr: layout.structureCsr,
  block: layout.structureBlock,
  "tiled-csl": layout.structureTiledCsl,
  "int8-mixed": layout.structureInt8Mixed,
};

/** What the kernels know a format by. */
export function formatCode(format: PackedFormatId): number {
  if (!isSparse(format)) return valueCodes[format];
  const { structure, value } = sparseFormats[format];
  return (structureCodes[structure] << layout.structureShift) | valueCodes[value];
}
