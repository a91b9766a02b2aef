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

/** A tensor as rows of its last dimension, those of a stack one matrix after the other; a vector has rows of 1. */
export function rowsOfShape(shape: readonly number[]): { rows: number; cols: number } {
  const cols = shape.length > 1 ? shape[shape.length - 1] : 1;
  return { rows: elementCount(shape) / cols, cols };
}

/** Bytes of a tensor of this type and shape, stored plainly. */
export function byteLengthOf(info: Pick<TensorInfo, "dtype" | "shape">): number {
  return elementCount(info.shape) * dtypeBytes[info.dtype];
}
