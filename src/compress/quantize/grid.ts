import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { bf16FromF32, f32FromBf16 } from "../../tensor/index.js";
import type { QuantizeResult } from "../contract.js";
import { roundHalfEven } from "../rounding.js";

/** Options of a uniform grid, for the option schemas of methods that round to one. */
export const gridOptions = {
  bits: z._default(z.int().check(z.gte(2), z.lte(8)), 4).check(z.describe("bits per code")),
  groupSize: z
    ._default(z.int().check(z.gte(0), z.lte(65_536)), 32)
    .check(z.describe("entries of a row that share a grid; 0: the row")),
  scheme: z
    ._default(z.enum(["symmetric", "fullRange", "asymmetric"]), "symmetric")
    .check(z.describe("symmetric: ±(2ᵇ⁻¹ − 1) steps; fullRange: all 2ᵇ codes, symmetric range; asymmetric: min … max")),
  scaleType: z
    ._default(z.enum(["f32", "bf16"]), "f32")
    .check(z.describe("bf16 scales are rounded up, as packed formats store them")),
  searchRange: z
    ._default(z.boolean(), false)
    .check(z.describe("shrink each range to the least Σ|error|^2.4 (80 steps)")),
};

const gridSchema = z.strictObject(gridOptions);
export type GridOptions = z.output<typeof gridSchema>;

interface Grid {
  scale: number;
  zero: number;
  low: number;
  high: number;
}

/** Each scheme: the grid for values between min ≤ 0 and max ≥ 0, not both 0. Zero is always a grid value. */
const schemes: Readonly<Record<GridOptions["scheme"], (min: number, max: number, bits: number) => Grid>> = {
  symmetric: (min, max, bits) => {
    const high = 2 ** (bits - 1) - 1;
    return { scale: Math.max(-min, max) / high, zero: 0, low: -high, high };
  },
  fullRange: (min, max, bits) => {
    const high = 2 ** bits - 1;
    return { scale: (2 * Math.max(-min, max)) / high, zero: 2 ** (bits - 1), low: 0, high };
  },
  asymmetric: (min, max, bits) => {
    const high = 2 ** bits - 1;
    const scale = (max - min) / high;
    return { scale, zero: roundHalfEven(-min / scale), low: 0, high };
  },
};

const scaleTypes: Readonly<Record<GridOptions["scaleType"], (scale: number) => number>> = {
  f32: Math.fround,
  bf16: (scale) => {
    const bits = bf16FromF32(scale);
    return f32FromBf16(f32FromBf16(bits) < scale ? bits + 1 : bits);
  },
};

export interface Range {
  /** ≤ 0 */
  min: number;
  /** ≥ 0 */
  max: number;
}

/** The range of values[start … end) and 0; −1 … 1 when there is nothing else. @throws UsageError when one is not finite */
export function rangeOf(values: ArrayLike<number>, start = 0, end = values.length): Range {
  let min = 0;
  let max = 0;
  for (let i = start; i < end; i++) {
    if (!Number.isFinite(values[i])) throw new UsageError(`weight ${i} is ${values[i]}; it must be finite`);
    if (values[i] < min) min = values[i];
    if (values[i] > max) max = values[i];
  }
  return min === 0 && max === 0 ? { min: -1, max: 1 } : { min, max };
}

/** A matrix being rounded: its grids, then its codes. */
export class GridMatrix {
  readonly codes: Int16Array;
  readonly scales: Float32Array;
  readonly zeros: Int16Array;
  readonly groupSize: number;
  readonly groupsPerRow: number;
  readonly #low: number;
  readonly #high: number;

  constructor(
    readonly rows: number,
    readonly cols: number,
    readonly options: GridOptions,
  ) {
    this.groupSize = options.groupSize === 0 ? cols : Math.min(options.groupSize, cols);
    this.groupsPerRow = Math.ceil(cols / this.groupSize);
    this.codes = new Int16Array(rows * cols);
    this.scales = new Float32Array(rows * this.groupsPerRow);
    this.zeros = new Int16Array(rows * this.groupsPerRow);
    const { low, high } = schemes[options.scheme](-1, 1, options.bits);
    this.#low = low;
    this.#high = high;
  }

  /** Fits the grid of the group that starts at (row, col) to the row's entries in `values` [rows, cols]. */
  fit(row: number, col: number, values: ArrayLike<number>): void {
    const start = row * this.cols + col;
    const end = row * this.cols + Math.min(this.cols, col + this.groupSize);
    const range = rangeOf(values, start, end);
    this.setGrid(row, col, this.options.searchRange ? this.#bestRange(values, start, end, range) : range);
  }

  /** Fits the grids of all groups. */
  fitAll(values: ArrayLike<number>): void {
    for (let r = 0; r < this.rows; r++) {
      for (let c = 0; c < this.cols; c += this.groupSize) this.fit(r, c, values);
    }
  }

  /** Gives the group of (row, col) the grid for a range, min ≤ 0 ≤ max. */
  setGrid(row: number, col: number, range: Range): void {
    const grid = this.#gridOf(range.min, range.max);
    const group = row * this.groupsPerRow + Math.floor(col / this.groupSize);
    this.scales[group] = grid.scale;
    this.zeros[group] = grid.zero;
  }

  /** Rounds one entry, half to even, and stores its code. @returns the value of the code */
  round(row: number, col: number, value: number): number {
    const group = row * this.groupsPerRow + Math.floor(col / this.groupSize);
    const scale = this.scales[group];
    const zero = this.zeros[group];
    const code = Math.min(this.#high, Math.max(this.#low, roundHalfEven(value / scale) + zero));
    this.codes[row * this.cols + col] = code;
    return scale * (code - zero);
  }

  /** Rounds all entries, with the grids already fitted. */
  roundAll(values: ArrayLike<number>): void {
    for (let r = 0; r < this.rows; r++) for (let c = 0; c < this.cols; c++) this.round(r, c, values[r * this.cols + c]);
  }

  /** f32 [rows, cols]: the values of the codes. */
  dequantized(): Float32Array {
    const { rows, cols, codes, scales, zeros, groupSize, groupsPerRow } = this;
    const out = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        const group = r * groupsPerRow + Math.floor(c / groupSize);
        out[r * cols + c] = scales[group] * (codes[r * cols + c] - zeros[group]);
      }
    }
    return out;
  }

  result(): QuantizeResult {
    return { weight: this.dequantized(), ...this.codesAndGrids() };
  }

  codesAndGrids(): Omit<QuantizeResult, "weight"> {
    const { codes, scales, zeros, groupSize } = this;
    return { codes, scales, zeros, bits: this.options.bits, groupSize };
  }

  #gridOf(min: number, max: number): Grid {
    const { scheme, bits, scaleType } = this.options;
    const grid = schemes[scheme](min, max, bits);
    // A range below f32's smallest number would give a scale of 0 and codes that are not numbers.
    return { ...grid, scale: Math.max(scaleTypes[scaleType](grid.scale), 2 ** -126) };
  }

  #bestRange(values: ArrayLike<number>, start: number, end: number, { min, max }: Range): Range {
    let best = { min, max };
    let bestError = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 80; i++) {
      const share = 1 - i / 100;
      const { scale, zero, low, high } = this.#gridOf(min * share, max * share);
      let error = 0;
      // Most ranges are worse than the best so far after a few entries.
      for (let k = start; k < end && error < bestError; k++) {
        const code = Math.min(high, Math.max(low, roundHalfEven(values[k] / scale) + zero));
        error += Math.abs(values[k] - scale * (code - zero)) ** 2.4;
      }
      if (error < bestError) {
        bestError = error;
        best = { min: min * share, max: max * share };
      }
    }
    return best;
  }
}
