import type { WeightFormat, WeightFormatId } from "./format.js";
import { bf16, f32 } from "./formats/dense.js";
import { q4, q8 } from "./formats/quantized.js";

/** Every dense weight format: the value types that weights can be loaded in. */
export const weightFormats: Readonly<Record<WeightFormatId, WeightFormat>> = { f32, bf16, q8, q4 };
