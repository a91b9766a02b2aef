import { type Layer, type StatisticId, StatisticsAccumulator } from "../../src/compress/index.js";
import { Random } from "../../src/core/index.js";

/** Which statistics a full calibration collects. */
export const allStatistics: readonly StatisticId[] = ["columnSquares", "columnAbsMax", "columnAbsMean", "gram"];

export interface SyntheticLayer extends Layer {
  /** f32 [tokens, cols]. */
  inputs: Float32Array;
}

/**
 * A layer with correlated inputs x = A·z: z standard normal, A a diagonal log-uniform in 0.3 … 3 plus a dense random part
 * of relative size 0.3. With `outliers`, one channel in 200 (at least one) is twenty times larger.
 */
export function syntheticLayer(
  seed: number,
  rows: number,
  cols: number,
  { tokens = 4 * cols, outliers = false } = {},
): SyntheticLayer {
  const random = new Random(seed);
  const weight = Float32Array.from({ length: rows * cols }, () => random.normal() / Math.sqrt(cols));
  const mix = Float64Array.from({ length: cols * cols }, () => (0.3 * random.normal()) / Math.sqrt(cols));
  const sizes = Float64Array.from({ length: cols }, () => 0.3 * 10 ** random.uniform());
  const outlying = new Set(
    outliers ? Array.from({ length: Math.max(1, Math.round(cols / 200)) }, () => random.integer(cols)) : [],
  );
  const inputs = new Float32Array(tokens * cols);
  const z = new Float64Array(cols);
  for (let t = 0; t < tokens; t++) {
    for (let c = 0; c < cols; c++) z[c] = random.normal();
    for (let c = 0; c < cols; c++) {
      let x = z[c];
      for (let k = 0; k < cols; k++) x += mix[c * cols + k] * z[k];
      inputs[t * cols + c] = x * sizes[c] * (outlying.has(c) ? 20 : 1);
    }
  }
  return { weight, rows, cols, inputs };
}

/** Everything a calibration over the layer's inputs would collect. */
export function statisticsOf(layer: SyntheticLayer) {
  const accumulator = new StatisticsAccumulator(layer.cols, allStatistics);
  accumulator.add(layer.inputs);
  return accumulator.finish();
}

/** Mean over tokens of ‖(Ŵ − W)·x‖², straight from the inputs. */
export function outputError(layer: SyntheticLayer, weight: ArrayLike<number>): number {
  const { rows, cols, inputs } = layer;
  const tokens = inputs.length / cols;
  let total = 0;
  for (let r = 0; r < rows; r++) {
    const difference = Float64Array.from({ length: cols }, (_, c) => weight[r * cols + c] - layer.weight[r * cols + c]);
    for (let t = 0; t < tokens; t++) {
      let y = 0;
      for (let c = 0; c < cols; c++) y += difference[c] * inputs[t * cols + c];
      total += y * y;
    }
  }
  return total / tokens;
}

/** Number of zeros in a mask or matrix. */
export function countZeros(values: ArrayLike<number>, start = 0, end = values.length): number {
  let zeros = 0;
  for (let i = start; i < end; i++) if (values[i] === 0) zeros++;
  return zeros;
}

export const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;
