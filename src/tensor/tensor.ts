import { type DType, dtypeBytes } from "./dtype.js";

/** What is known of a stored tensor before its bytes are read. */
export interface TensorInfo {
  /** Name in the checkpoint: "model.layers.0.self_attn.q_proj.weight". */
  name: string;
  dtype: DType;
  /** Row-major; a linear weight is [out, in]. */
  shape: readonly number[];
}

/** A stored tensor with its bytes: little-endian, row-major, `byteLengthOf(info)` of them. */
export interface Tensor extends TensorInfo {
  bytes: Uint8Array;
}

/** Elements of a tensor of this shape; 1 for a scalar, whose shape is []. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Bytes of a tensor of this type and shape, stored plainly. */
export function byteLengthOf(info: Pick<TensorInfo, "dtype" | "shape">): number {
  return elementCount(info.shape) * dtypeBytes[info.dtype];
}
