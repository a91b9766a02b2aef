import type { Compute, GpuMemory, Kernel } from "../../../kernels/index.js";
import { gridOf } from "./elementKernels.js";
import type { Place } from "./plan.js";
import { Products, partsLength } from "./products.js";
import { columnSums } from "./rowKernels.js";

/** Rows that one part of a sum over rows adds up, where there is room for so many parts. */
const fewRows = 32;

/** What a model is on the device: all parameters by their plan, gradients alike with the loss of every row behind them. */
export interface ModelMemory {
  compute: Compute;
  weights: GpuMemory;
  gradients: GpuMemory;
}

/** Forward and backward of what models are made of, as dispatches, for arrays of so many rows. */
export class Operations {
  readonly products: Products;

  constructor(
    readonly model: ModelMemory,
    /** Room for sums over parts. */
    readonly parts: GpuMemory,
    readonly rows: number,
  ) {
    this.products = new Products(model.compute.recorder, parts);
  }

  /** y = x·Wᵀ (+ base). */
  linear(x: GpuMemory, weight: Place, y: GpuMemory, base?: GpuMemory): void {
    this.products.record({ ...this.#linear(x, weight), c: { memory: y, stride: weight.rows }, base });
  }

  /** y = x·Wᵀ for few rows of W, which are long. */
  longLinear(x: GpuMemory, weight: Place, y: GpuMemory): void {
    this.products.recordInParts(this.#linear(x, weight), y);
  }

  /** dX = dY·W (+ base). */
  throughWeight(outer: GpuMemory, weight: Place, target: GpuMemory, base?: GpuMemory): void {
    this.products.record({
      layout: "nn",
      rows: this.rows,
      columns: weight.cols,
      depth: weight.rows,
      a: { memory: outer, stride: weight.rows },
      b: this.#factor(weight),
      c: { memory: target, stride: weight.cols },
      base,
    });
  }

  /** dW = dYᵀ·X. Rows that are missing to a multiple of four must be 0 in dY. */
  weightGradient(outer: GpuMemory, weight: Place, x: GpuMemory): void {
    const product = {
      layout: "tn",
      rows: weight.rows,
      columns: weight.cols,
      depth: Math.ceil(this.rows / 4) * 4,
      a: { memory: outer, stride: weight.rows },
      b: { memory: x, stride: weight.cols },
    } as const;
    this.products.recordInParts(product, this.model.gradients, weight.offset);
  }

  /** db = Σ over the rows of dY. */
  biasGradient(outer: GpuMemory, bias: Place): void {
    this.sumRows(columnSums, { outer }, bias.rows, bias.offset);
  }

  clearGradient({ rows, cols, offset }: Place): void {
    this.products.addUp(0, rows * cols, this.model.gradients, offset);
  }

  /** Gradients at `offset` from a kernel that adds up rows: `vectors` of them, each of `width`. */
  sumRows<B extends string>(
    kernel: Kernel<"width" | "rows" | "rowsPerPart", B | "parts">,
    buffers: Record<NoInfer<B>, GpuMemory>,
    width: number,
    offset: number,
    vectors = 1,
  ): void {
    const rowsPerPart = Math.max(fewRows, Math.ceil((this.rows * vectors * width) / partsLength));
    const parts = Math.ceil(this.rows / rowsPerPart);
    this.dispatch(
      kernel,
      { width, rows: this.rows, rowsPerPart },
      { ...buffers, parts: this.parts } as Record<B | "parts", GpuMemory>,
      [Math.ceil(width / 64), parts],
    );
    this.products.addUp(parts, vectors * width, this.model.gradients, offset);
  }

  /** An element-wise kernel over `params.count` elements. */
  elements<P extends string, B extends string>(
    kernel: Kernel<P | "count", B>,
    params: Record<NoInfer<P> | "count", number>,
    buffers: Record<NoInfer<B>, GpuMemory>,
  ): void {
    this.dispatch(kernel, params, buffers, gridOf(params.count));
  }

  dispatch<P extends string, B extends string>(
    kernel: Kernel<P, B>,
    params: Record<NoInfer<P>, number>,
    buffers: Record<NoInfer<B>, GpuMemory>,
    grid: readonly [number, number?],
  ): void {
    const { recorder } = this.model.compute;
    recorder.makeRoom(1, 0);
    recorder.run(kernel, params, buffers, grid);
  }

  #linear(x: GpuMemory, weight: Place) {
    return {
      layout: "nt",
      rows: this.rows,
      columns: weight.rows,
      depth: weight.cols,
      a: { memory: x, stride: weight.cols },
      b: this.#factor(weight),
    } as const;
  }

  #factor({ cols, offset }: Place) {
    return { memory: this.model.weights, stride: cols, offset };
  }
}
