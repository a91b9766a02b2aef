import type { PackedFormatId } from "../pack/index.js";
import type { DType } from "../tensor/index.js";

/** A handle on f32 [rows, cols] owned by a backend, or on a rectangle of one. */
export interface Activation {
  readonly rows: number;
  readonly cols: number;
  /** Columns [start, start + count) of all rows, sharing storage. `start` and `count` are multiples of 4. */
  columns(start: number, count: number): Activation;
  /** Rows [start, start + count), sharing storage. */
  rowRange(start: number, count: number): Activation;
  /**
   * The same numbers in rows of `cols`, sharing storage.
   * @throws UsageError unless rows lie behind one another and `cols`, a multiple of 4, divides them
   */
  reshape(cols: number): Activation;
}

/** A handle on an f32 vector: a norm weight or a bias. */
export interface Vector {
  readonly length: number;
}

/** One weight matrix as it lies in a file, read by rows so that it never has to be in memory whole. */
export interface RowSource {
  /** Name in the checkpoint, for messages. */
  readonly name: string;
  /** Output width. */
  readonly rows: number;
  /** Input width. */
  readonly cols: number;
  readonly dtype: DType;
  /** Rows [start, start + count) as stored: little-endian, row-major, `count * cols * dtypeBytes[dtype]` bytes. */
  read(start: number, count: number, into: Uint8Array): Promise<void>;
  /**
   * Told that rows [start, start + count), as they were read, seem to hold NaN or infinity. Packers see that in passing, and may
   * take numbers near the largest f32 for it.
   */
  onNonFinite?(start: number, count: number): Promise<void>;
  /**
   * Present where the matrix lies on symmetric grids: the scale of every group of 32 consecutive inputs of rows
   * [start, start + count), f32 [count, ⌈cols / 32⌉]. q8 and q4 take a scale over, rounded to bf16, where the codes of its group
   * fit, and then hold the codes as they are stored; elsewhere they fit their own.
   */
  scales?(start: number, count: number, into: Float32Array): Promise<void>;
}

/**
 * A handle on a packed weight matrix [rows, cols] (out, in), possibly several stacked along `rows` because they share
 * their input (q, k, v; gate, up). In the stack each part begins at its own column of the output activation.
 */
export interface Matrix {
  readonly format: PackedFormatId;
  /** Sum of the parts' rows. */
  readonly rows: number;
  readonly cols: number;
  readonly parts: readonly MatrixPart[];
  /** Bytes of all parts as packed, each padded by itself: what one product without thresholds reads. */
  readonly byteLength: number;
}

/** One of the matrices that are stacked in a `Matrix` because they share their input. */
export interface MatrixPart {
  readonly name: string;
  /** First row of the part in the stack, and so the first output column. */
  readonly rowStart: number;
  readonly rows: number;
}

/** Which columns of a head a rotary embedding turns: `width` of them, from `first` on. The others stay. */
export interface RopeLayout {
  readonly headDim: number;
  readonly first: number;
  /** An even number. */
  readonly width: number;
  /** What turns together, counted from `first`: columns (i, i + width / 2), or (2i, 2i + 1). */
  readonly pairs: "halves" | "neighbours";
}

/** cos and sin for every position of a rotary embedding, f32 [positions, width / 2] each, and what they turn. */
export interface RopeTable extends RopeLayout {
  readonly positions: number;
}

/** Heads that are turned as a whole, by halves (Llama). */
export const wholeHeads = (headDim: number): RopeLayout => ({ headDim, first: 0, width: headDim, pairs: "halves" });

/** Whether whole heads are turned, by halves: what `rotatedAttention` takes. */
export const isWholeHeads = ({ headDim, first, width, pairs }: RopeLayout): boolean =>
  first === 0 && width === headDim && pairs === "halves";

/** Pair i of a head is the columns first + i · step and first + i · step + apart. */
export const pairPlaces = ({ first, width, pairs }: RopeLayout) => ({
  first,
  half: width / 2,
  step: pairs === "halves" ? 1 : 2,
  apart: pairs === "halves" ? width / 2 : 1,
});
