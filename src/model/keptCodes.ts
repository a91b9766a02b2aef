import type { LogicalTensor } from "../io/index.js";
import { groupSize, type WeightFormatId } from "../pack/index.js";

/** Whether groups of 32 inputs, which share a scale in packed formats, lie within groups of the grid that a matrix is stored on. */
export const hasGroupScales = ({ grid, shape }: LogicalTensor): boolean =>
  grid?.symmetric === true && (grid.groupSize % groupSize === 0 || grid.groupSize >= shape[1]);

/** Encodings that leave zeros out and hold plain values otherwise. */
const masks: readonly string[] = ["bitmask", "24-bitmask", "sparse-bitmask", "sparse-24-bitmask"];

/** Whether a matrix is stored as codes of some kind, not as values. */
export const isCoded = ({ grid, encoding }: LogicalTensor): boolean =>
  grid !== undefined || (encoding !== undefined && !masks.includes(encoding));

/** Bits of the codes of packed formats. */
const codeBits: Partial<Record<WeightFormatId, number>> = { q8: 8, q4: 4 };

/** Whether a packed format holds the codes that a matrix is stored as, with scales rounded to bf16; f32 holds all values. */
export function keepsCodes(weights: WeightFormatId, tensor: LogicalTensor): boolean {
  if (weights === "f32") return true;
  const bits = codeBits[weights];
  return bits !== undefined && hasGroupScales(tensor) && tensor.grid!.bits <= bits;
}
