import { UsageError } from "../core/index.js";
import { addProductTransposed, mirrorLower, view } from "./linalg/index.js";

/** Sums over all calibration tokens x [cols] at the input of a layer. */
export interface StatisticValues {
  /** f64 [cols], Σ x². */
  columnSquares: Float64Array;
  /** f32 [cols], max |x|. */
  columnAbsMax: Float32Array;
  /** f64 [cols], mean |x|. */
  columnAbsMean: Float64Array;
  /** f64 or f32 [cols, cols], Σ x·xᵀ, both triangles. */
  gram: Float64Array | Float32Array;
  /** f32 [rows, cols] of this very weight (so not shared by layers): mean over examples of the loss gradient. */
  gradients: Float32Array;
  /** f32 [rows, cols] of this very weight: mean over examples of the squared loss gradient. */
  squaredGradients: Float32Array;
}

/** Statistics of a weight itself: they cannot be had from inputs. */
export const gradientStatistics = ["gradients", "squaredGradients"] as const;
/** "gradients" or "squaredGradients". */
export type GradientStatistic = (typeof gradientStatistics)[number];

/** Name of a statistic that methods ask for; `StatisticValues` has shape and meaning of each. */
export type StatisticId = keyof StatisticValues;

/**
 * What was measured at one place of a model, shared by all layers that read there (q, k, v; gate, up). Things derived
 * from it that are costly, such as a factored Hessian, are kept with it, so that those layers pay once.
 */
export class InputStatistics {
  readonly #derived = new Map<string, unknown>();

  /** @param tokens how many inputs were seen */
  constructor(
    readonly cols: number,
    readonly tokens: number,
    readonly values: Partial<StatisticValues> = {},
  ) {}

  has(id: StatisticId): boolean {
    return this.values[id] !== undefined || (id === "columnSquares" && this.values.gram !== undefined);
  }

  /** @throws UsageError when it was not collected. */
  get<Id extends StatisticId>(id: Id): StatisticValues[Id] {
    const value = this.values[id];
    if (value !== undefined) return value;
    if (id === "columnSquares" && this.values.gram !== undefined) {
      return this.derive("columnSquares", () => diagonal(this.values.gram!, this.cols)) as StatisticValues[Id];
    }
    throw new UsageError(`the statistic ${id} was not collected for this layer`);
  }

  /** The same inputs with channel c divided by factors[c]. */
  dividedBy(factors: Float32Array): InputStatistics {
    const { columnSquares, columnAbsMax, columnAbsMean, gram } = this.values;
    const values: Partial<StatisticValues> = {};
    const n = this.cols;
    if (columnSquares !== undefined) values.columnSquares = columnSquares.map((sum, c) => sum / factors[c] ** 2);
    if (columnAbsMax !== undefined) values.columnAbsMax = columnAbsMax.map((max, c) => max / factors[c]);
    if (columnAbsMean !== undefined) values.columnAbsMean = columnAbsMean.map((mean, c) => mean / factors[c]);
    if (gram !== undefined) {
      values.gram = gram.slice();
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) values.gram[i * n + j] /= factors[i] * factors[j];
    }
    return new InputStatistics(n, this.tokens, values);
  }

  /** Of a place that no token reached: as if all its inputs counted alike and none went with another. */
  static uniform(cols: number, wanted: readonly StatisticId[]): InputStatistics {
    const values: Partial<StatisticValues> = {};
    if (wanted.includes("columnSquares")) values.columnSquares = new Float64Array(cols).fill(1);
    if (wanted.includes("columnAbsMax")) values.columnAbsMax = new Float32Array(cols).fill(1);
    if (wanted.includes("columnAbsMean")) values.columnAbsMean = new Float64Array(cols).fill(1);
    if (wanted.includes("gram")) {
      values.gram = new Float32Array(cols * cols);
      for (let i = 0; i < cols; i++) values.gram[i * cols + i] = 1;
    }
    return new InputStatistics(cols, 0, values);
  }

  /** All inputs of several places of one width together. */
  static merged(several: readonly InputStatistics[]): InputStatistics {
    const [{ cols, values: first }] = several;
    const tokens = several.reduce((sum, { tokens }) => sum + tokens, 0);
    const values: Partial<StatisticValues> = {};
    const total = (id: "columnSquares" | "gram", out: Float64Array) => {
      for (const { values } of several) for (let i = 0; i < out.length; i++) out[i] += values[id]![i];
      return out;
    };
    if (first.columnSquares !== undefined) values.columnSquares = total("columnSquares", new Float64Array(cols));
    if (first.gram !== undefined) values.gram = total("gram", new Float64Array(cols * cols));
    if (first.columnAbsMax !== undefined) {
      values.columnAbsMax = new Float32Array(cols).map((_, c) =>
        Math.max(...several.map((one) => one.values.columnAbsMax![c])),
      );
    }
    if (first.columnAbsMean !== undefined) {
      values.columnAbsMean = new Float64Array(cols).map(
        (_, c) =>
          several.reduce((sum, one) => sum + one.tokens * one.values.columnAbsMean![c], 0) / Math.max(1, tokens),
      );
    }
    return new InputStatistics(cols, tokens, values);
  }

  /** The value made by `compute` on the first call with this key. */
  derive<T>(key: string, compute: () => T): T {
    if (!this.#derived.has(key)) this.#derived.set(key, compute());
    return this.#derived.get(key) as T;
  }
}

function diagonal(matrix: Float64Array | Float32Array, n: number): Float64Array {
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) out[i] = matrix[i * n + i];
  return out;
}

const chunkTokens = 256;
const tile = 192;

/** Adds up statistics over batches of inputs. The plain form, in f64; backends may have faster ones of their own. */
export class StatisticsAccumulator {
  readonly #values: Partial<StatisticValues> = {};
  readonly #transposed: Float64Array;
  #tokens = 0;

  /** @param wanted what to collect; gradients cannot be had from inputs. */
  constructor(
    readonly cols: number,
    readonly wanted: readonly StatisticId[],
  ) {
    const gradient = gradientStatistics.find((id) => wanted.includes(id));
    if (gradient !== undefined) throw new UsageError(`${gradient} are not a statistic of inputs`);
    if (wanted.includes("columnSquares")) this.#values.columnSquares = new Float64Array(cols);
    if (wanted.includes("columnAbsMax")) this.#values.columnAbsMax = new Float32Array(cols);
    if (wanted.includes("columnAbsMean")) this.#values.columnAbsMean = new Float64Array(cols);
    if (wanted.includes("gram")) this.#values.gram = new Float64Array(cols * cols);
    this.#transposed = new Float64Array(wanted.includes("gram") ? cols * chunkTokens : 0);
  }

  /**
   * @param x f32 [tokens, cols]
   * @throws UsageError when a value is not finite: it would poison the sums for good.
   */
  add(x: Float32Array): void {
    const { cols } = this;
    const tokens = x.length / cols;
    if (!Number.isInteger(tokens)) throw new UsageError(`${x.length} values are no whole rows of ${cols}`);
    const bad = x.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw new UsageError(`input channel ${bad % cols} of a calibration batch is ${x[bad]}`);
    const { columnSquares, columnAbsMax, columnAbsMean, gram } = this.#values;
    for (let t = 0; t < tokens; t++) {
      const row = t * cols;
      if (columnSquares !== undefined) for (let c = 0; c < cols; c++) columnSquares[c] += x[row + c] * x[row + c];
      if (columnAbsMax !== undefined) {
        for (let c = 0; c < cols; c++) columnAbsMax[c] = Math.max(columnAbsMax[c], Math.abs(x[row + c]));
      }
      if (columnAbsMean !== undefined) for (let c = 0; c < cols; c++) columnAbsMean[c] += Math.abs(x[row + c]);
    }
    if (gram !== undefined) {
      for (let t = 0; t < tokens; t += chunkTokens) {
        this.#addToGram(gram as Float64Array, x, t, Math.min(chunkTokens, tokens - t));
      }
    }
    this.#tokens += tokens;
  }

  #addToGram(gram: Float64Array, x: Float32Array, start: number, count: number): void {
    const { cols } = this;
    const xt = this.#transposed;
    for (let t = 0; t < count; t++) {
      const row = (start + t) * cols;
      for (let c = 0; c < cols; c++) xt[c * chunkTokens + t] = x[row + c];
    }
    // Rows of tiles of the lower triangle; the other half is mirrored at the end.
    for (let i = 0; i < cols; i += tile) {
      const rows = Math.min(tile, cols - i);
      const a = view(xt, chunkTokens, i);
      addProductTransposed(1, a, view(xt, chunkTokens), view(gram, cols, i), rows, i + rows, count);
    }
  }

  /** The sums so far; accumulation may go on afterwards, but not on the arrays handed out. */
  finish(): InputStatistics {
    const { columnSquares, columnAbsMax, columnAbsMean, gram } = this.#values;
    const values: Partial<StatisticValues> = {};
    if (columnSquares !== undefined) values.columnSquares = columnSquares.slice();
    if (columnAbsMax !== undefined) values.columnAbsMax = columnAbsMax.slice();
    if (columnAbsMean !== undefined) values.columnAbsMean = columnAbsMean.map((sum) => sum / Math.max(1, this.#tokens));
    if (gram !== undefined) {
      mirrorLower(gram, this.cols);
      values.gram = gram;
    }
    return new InputStatistics(this.cols, this.#tokens, values);
  }
}
