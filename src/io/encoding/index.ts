export { unpackCodes } from "./bits.js";
export type { TensorDeclaration, TensorGrid } from "./declaration.js";
export { decodeRows } from "./decode.js";
export { type EncodedTensor, type LogicalTensor, openEncoded, type RawTensors } from "./encodedTensor.js";
export type { GridCodes } from "./encodeOnGrid.js";
export { type EncodedTensors, encodeTensor, type TensorToEncode } from "./encodeTensor.js";
export type { FloatDType } from "./floatDType.js";
export { rounded } from "./floatDType.js";
export { encodedBytes, type PartId, partNamesOf, partsOf } from "./parts.js";
