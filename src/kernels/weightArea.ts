import { padded, type WeightFormatId, weightFormats } from "../pack/index.js";
import type { ExpertMatrices } from "./experts.js";
import type { Activation, Vector } from "./handles.js";

/** Columns of a packed matrix [rows of all parts, cols], each of which lies wherever in an area there was room, or not at all. */
export interface ScatteredColumns {
  readonly format: WeightFormatId;
  readonly cols: number;
  readonly parts: readonly { readonly name: string; readonly rows: number }[];
  /** Byte offsets in the area, multiples of 16: of the places of all columns (`placesBytes`), … */
  readonly places: number;
  /** … of the scales of all groups as they are packed, `scalesBytes` of them, … */
  readonly scales: number;
  /** … and of what holds sums between two calls, `sumsBytes`. */
  readonly sums: number;
}

/** Rows [cols] of a matrix as `packRows` makes them, each wherever there was room. */
export interface ScatteredRows {
  readonly format: WeightFormatId;
  readonly cols: number;
  /** Byte offset in the area of every row that is multiplied, a multiple of 4. */
  readonly offsets: Uint32Array;
  /** The column of `out` that each row makes. */
  readonly outputs: Uint32Array;
}

/** All rows [cols] of a matrix as `packRows` makes them, each wherever there was room. */
export interface PlacedRows {
  readonly format: WeightFormatId;
  readonly cols: number;
  readonly rows: number;
  /** Byte offset in the area, a multiple of 4, of the places of all rows, 4 bytes each. */
  readonly places: number;
}

/** The same packed matrix [rows of all parts, cols] of every expert, of which only some lie in an area. */
export interface PlacedExperts {
  readonly format: WeightFormatId;
  readonly cols: number;
  readonly parts: readonly { readonly name: string; readonly rows: number }[];
  /** How many experts there are. */
  readonly experts: number;
  /** Byte offsets, multiples of 64, of those that lie in the area: packed as a whole, each part padded by itself. */
  readonly offsets: ReadonlyMap<number, number>;
  /** One of each expert. */
  readonly biases?: readonly Vector[];
}

/** Which columns are multiplied, and what is done with the sums. */
export interface ScatteredColumnsOptions {
  /** As in `LinearOptions`, one for every part: only the columns of inputs beyond them need have a place. */
  thresholds: readonly number[];
  bias?: Vector;
  accumulate?: boolean;
  /** Groups of 32 inputs; default all. The first call of a product begins with 0, calls follow one another, the last writes `out`. */
  firstGroup?: number;
  endGroup?: number;
}

/**
 * Weight memory of a backend that the host fills, overwrites and fills again while a model runs: what models that are larger than
 * memory are multiplied from. Products have the same bits as those of `linear` with the same thresholds.
 */
export interface WeightArea extends Disposable {
  readonly byteLength: number;
  /** A view that is good until the backend is used again. Nothing that is enqueued may need what is written there. */
  bytes(offset: number, byteLength: number): Uint8Array;
  /** Says where column `index` of columns begins. */
  place(columns: ScatteredColumns, index: number, offset: number): void;
  /**
   * out [1, rows] = x [1, cols] · Wᵀ (+ bias) (+ out), enqueued. Counts like a sparse `linear`.
   * @throws UsageError for shapes that do not fit
   */
  linearColumns(out: Activation, x: Activation, columns: ScatteredColumns, options: ScatteredColumnsOptions): void;
  /** out[outputs[i]] = x · row i, enqueued; other columns of `out` stay. Counts the bytes of the rows. @param threshold of inputs, −1 for none */
  linearRows(out: Activation, x: Activation, rows: ScatteredRows, threshold: number): void;
  /** Says where row `index` begins, at a multiple of 4. */
  placeRow(rows: PlacedRows, index: number, offset: number): void;
  /**
   * out[i] = x · row i where gate[i] > 0 or a NaN, 0 elsewhere; enqueued. Only those rows are read, and their bytes are counted. The gate
   * is looked at when its turn comes, so that nobody waits for it. gate, out [1, rows] @param threshold of inputs, −1 for none
   */
  linearOpenRows(out: Activation, x: Activation, gate: Activation, rows: PlacedRows, threshold: number): void;
  /** Experts for `expertLinear`, good while they lie where they lie; rows may go only to those that are in the area. */
  experts(placed: PlacedExperts): ExpertMatrices;
}

/** Bytes of such a matrix. */
export const placedBytes = ({ format, cols, parts }: Pick<PlacedExperts, "format" | "cols" | "parts">): number =>
  weightFormats[format].byteLength(packedRowsOf(parts), cols);

/** Parts with the rows at which they begin, in the stack and packed. */
export function partStarts(parts: PlacedExperts["parts"]) {
  let [rowStart, packedStart] = [0, 0];
  return parts.map(({ name, rows }) => {
    const part = { name, rows, rowStart, packedStart };
    rowStart += rows;
    packedStart += padded(rows);
    return part;
  });
}

/** Rows of a stack as packed: each part is padded by itself. */
export const packedRowsOf = (parts: readonly { readonly rows: number }[]): number =>
  parts.reduce((sum, { rows }) => sum + padded(rows), 0);

/** Bytes of the places of columns in an area. */
export const placesBytes = ({ cols }: Pick<ScatteredColumns, "cols">): number => padded(cols) * 4;

/** Bytes of the scales of all groups of columns; 0 in formats without. */
export const scalesBytes = ({ format, cols, parts }: Pick<ScatteredColumns, "format" | "cols" | "parts">): number =>
  (padded(cols) / 32) * weightFormats[format].groupScaleBytes(packedRowsOf(parts));

/** Bytes that a product with columns needs between its calls. */
export const sumsBytes = ({ cols, parts }: Pick<ScatteredColumns, "cols" | "parts">): number =>
  slicesOf(cols) * packedRowsOf(parts) * 4;

/** As many slices as dense products have: their number decides how sums are rounded. */
export const slicesOf = (cols: number): number => Math.min(4, padded(cols) / 32);
