import type { Compute, DeviceMemory, Kernel } from "../../../kernels/internal.js";
import { addRepeated, gridOf } from "./elementKernels.js";
import type { Place } from "./layout.js";
import { type Products, partsLength, type Runs } from "./products.js";
import { columnSums } from "./rowKernels.js";

/** Rows that one part of a sum over rows adds up, where there is room for so many parts. */
const fewRows = 32;

/** What a model is on the device: all parameters by their plan, gradients alike with the loss of every row behind them. */
export interface ModelMemory {
  compute: Compute;
  weights: DeviceMemory;
  gradients: DeviceMemory;
}

/** Rows on the device, `stride` f32 apart, the first at `offset`. */
export interface Rows {
  memory: DeviceMemory;
  stride: number;
  offset?: number;
}

/** A sum over rows: how many, of what width, into the gradients at `offset`. */
export interface RowSum {
  /** Default: those of the operations. */
  rows?: number;
  width: number;
  offset: number;
  /** Sums side by side that the kernel makes of a column. Default 1. */
  vectors?: number;
}

type RowSumParams = "width" | "rows" | "rowsPerPart";

/** Forward and backward of what models are made of, as dispatches, for arrays of so many rows. */
export class Operations {
  constructor(
    readonly model: ModelMemory,
    readonly products: Products,
    readonly rows: number,
    /** Rows of experts: weights are those of each run. */
    readonly runs?: Runs,
  ) {}

  /** y = x·Wᵀ (+ base, which lies as y does). */
  linear(x: Rows, weight: Place, y: Rows, base?: DeviceMemory): void {
    this.products.record({ ...this.#linear(x, weight), c: y, base });
  }

  /** y = x·Wᵀ for few rows of W, which are long. */
  longLinear(x: Rows, weight: Place, y: DeviceMemory): void {
    this.products.recordInParts(this.#linear(x, weight), y);
  }

  /** y += b for every row. */
  addBias(y: DeviceMemory, bias: Place): void {
    this.addRepeated(y, this.model.weights, bias.offset, bias.rows);
  }

  /** y += table[offset, offset + length), over and over; a row of y is as long or a part of it. */
  addRepeated(y: DeviceMemory, table: DeviceMemory, offset: number, length: number): void {
    const params = { count: (this.rows * length) / 4, offset: offset / 4, period: length / 4 };
    this.elements(addRepeated, params, { x: y, table });
  }

  /** dX = dY·W (+ base, which lies as dX does). */
  throughWeight(outer: Rows, weight: Place, target: Rows, base?: DeviceMemory): void {
    this.products.record({
      layout: "nn",
      rows: this.rows,
      columns: weight.cols,
      depth: weight.rows,
      a: outer,
      b: this.#factor(weight),
      c: target,
      base,
      runs: this.runs,
    });
  }

  /** dW = dYᵀ·X. Rows that are missing to a multiple of the device's `rowUnit` must be 0 in dY. */
  weightGradient(outer: Rows, weight: Place, x: Rows): void {
    const { runs } = this;
    const { rows, cols, offset, expert } = weight;
    const { rowUnit } = this.model.compute;
    const depth = Math.ceil(this.rows / rowUnit) * rowUnit;
    const product = { layout: "tn", rows, columns: cols, depth, a: outer, b: x } as const;
    const { gradients } = this.model;
    if (runs === undefined) this.products.recordInParts(product, gradients, offset);
    else {
      const c = { memory: gradients, stride: cols, offset, batch: expert };
      this.products.record({ ...product, c, batches: runs.count, runs });
    }
  }

  /** db = Σ over the rows of dY, which lie side by side. */
  biasGradient(outer: DeviceMemory, bias: Place): void {
    this.sumRows(columnSums, { outer }, { width: bias.rows, offset: bias.offset }, {});
  }

  clearGradient({ rows, cols, offset }: Place): void {
    this.products.addUp(0, rows * cols, this.model.gradients, offset);
  }

  /** Gradients from a kernel that adds up rows in parts. */
  sumRows<P extends string, B extends string>(
    kernel: Kernel<P | RowSumParams, B | "parts">,
    buffers: Record<Exclude<NoInfer<B>, "parts">, DeviceMemory>,
    { rows = this.rows, width, offset, vectors = 1 }: RowSum,
    params: Record<Exclude<NoInfer<P>, RowSumParams>, number>,
  ): void {
    const rowsPerPart = Math.max(fewRows, Math.ceil((rows * vectors * width) / partsLength));
    const parts = Math.ceil(rows / rowsPerPart);
    this.dispatch(
      kernel,
      { ...params, width, rows, rowsPerPart } as Record<P | RowSumParams, number>,
      { ...buffers, parts: this.products.parts } as Record<B | "parts", DeviceMemory>,
      [Math.ceil(width / 64), parts],
    );
    this.products.addUp(parts, vectors * width, this.model.gradients, offset);
  }

  /** An element-wise kernel over `params.count` elements. */
  elements<P extends string, B extends string>(
    kernel: Kernel<P | "count", B>,
    params: Record<NoInfer<P> | "count", number>,
    buffers: Record<NoInfer<B>, DeviceMemory>,
  ): void {
    this.dispatch(kernel, params, buffers, gridOf(params.count));
  }

  dispatch<P extends string, B extends string>(
    kernel: Kernel<P, B>,
    params: Record<NoInfer<P>, number>,
    buffers: Record<NoInfer<B>, DeviceMemory>,
    grid: readonly [number, number?],
  ): void {
    const { recorder } = this.model.compute;
    recorder.makeRoom(1, 0);
    recorder.run(kernel, params, buffers, grid);
  }

  #linear(x: Rows, weight: Place) {
    return {
      layout: "nt",
      rows: this.rows,
      columns: weight.rows,
      depth: weight.cols,
      a: x,
      b: this.#factor(weight),
      runs: this.runs,
    } as const;
  }

  #factor({ cols, offset, expert }: Place) {
    return { memory: this.model.weights, stride: cols, offset, batch: expert };
  }
}
