export {
  bf16FromF32,
  type DType,
  dtypeBytes,
  f16FromF32,
  f32FromBf16,
  f32FromF16,
  fromFloat32,
  isDType,
  toFloat32,
} from "./dtype.js";
export { firstNonFinite } from "./finite.js";
export { findThreshold, keepAbove, magnitudeOf, type Threshold, ThresholdSearch, topS } from "./select.js";
export { e8M0Values, fp4Values } from "./smallFloats.js";
export { byteLengthOf, elementCount, type Tensor, type TensorInfo } from "./tensor.js";
