import type { FactorParts, Factors, TensorInfo } from "../../tensor/index.js";
import type { TensorGrid } from "./declaration.js";

/** The factors of a matrix as they lie in the file. */
export interface StoredFactors {
  readonly form: Factors;
  /** All parts, read once. @throws FormatError for numbers that are not finite, or beyond what they count */
  read(): Promise<FactorParts>;
}

/** A tensor as a model sees it, however it lies in the file. */
export interface LogicalTensor extends TensorInfo {
  /** How it lies in the file; left out for plain values of `dtype` in row-major order. */
  encoding?: string;
  /** Bytes of all its parts in the file; left out where that is `byteLengthOf` of it. */
  storedBytes?: number;
  /** Present when every value is scale · integer on these grids. */
  grid?: TensorGrid;
  /** Present when it is stored as factors, from which its rows are made when they are read. */
  factors?: StoredFactors;
}

/** A matrix that is decoded while it is read. */
export interface EncodedTensor {
  readonly info: LogicalTensor;
  /** Rows [start, start + count): values of `info.dtype`, little-endian, row-major. @throws FormatError */
  readRows(start: number, count: number): Promise<Uint8Array>;
  /** f32 [count, ⌈cols / groupSize⌉]; present when `info.grid` is. @throws FormatError */
  readScales?(start: number, count: number): Promise<Float32Array>;
}

/** The raw tensors of a checkpoint. */
export interface RawTensors {
  /** For messages. */
  readonly location: string;
  info(name: string): TensorInfo | undefined;
  read(name: string, byteOffset: number, byteLength: number): Promise<Uint8Array>;
}
