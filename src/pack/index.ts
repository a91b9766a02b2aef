import { bf16, f32 } from "./dense.js";
import type { WeightFormat, WeightFormatId } from "./format.js";
import { q4, q8 } from "./quantized.js";

export {
  groupSize,
  type PackedFormatId,
  padded,
  type SparseFormatId,
  type WeightFormat,
  type WeightFormatId,
} from "./format.js";

/** Every packed weight format. */
export const weightFormats: Readonly<Record<WeightFormatId, WeightFormat>> = { f32, bf16, q8, q4 };
