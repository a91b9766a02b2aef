export {
  bf16FromF32,
  type DType,
  dtypeBytes,
  f16FromF32,
  f32FromBf16,
  f32FromF16,
  fromFloat32,
  toFloat32,
} from "./dtype.js";
export {
  type FactorParts,
  type Factors,
  factorBytes,
  factorParameters,
  type KroneckerSum,
  type MatrixShape,
  type Morphemes,
  type ProductFactors,
  type TensorTrain,
  type Tucker,
  type Word2ket,
} from "./factors/index.js";
export { firstNonFinite } from "./finite.js";
export type { Threshold } from "./select.js";
export { e8M0Values, fp4Values } from "./smallFloats.js";
export { byteLengthOf, elementCount, type Tensor, type TensorInfo } from "./tensor.js";
