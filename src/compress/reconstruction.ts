import type { Shape } from "./contract.js";
import { quadraticTrace } from "./linalg/index.js";
import type { InputStatistics } from "./statistics.js";

/** What a change of weights does to a layer's output on the calibration inputs, bias and later layers left out. */
export interface ReconstructionError {
  /** Mean over tokens of ‖(Ŵ − W)·x‖². */
  squaredError: number;
  /** Mean over tokens of ‖W·x‖². */
  squaredOutput: number;
  /** √(squaredError / squaredOutput); 0 for a layer without output. */
  relative: number;
}

/**
 * @param dense, compressed f32 [rows, cols]
 * @param statistics with the gram of the input
 * @param maxRows of more rows so many are measured, evenly spaced, and stand for all
 */
export function reconstructionError(
  dense: Float32Array,
  compressed: Float32Array,
  { rows, cols }: Shape,
  statistics: InputStatistics,
  maxRows = rows,
): ReconstructionError {
  if (maxRows < rows) {
    const sample = (from: Float32Array) => everyNthRow(from, rows, cols, maxRows);
    const some = reconstructionError(sample(dense), sample(compressed), { rows: maxRows, cols }, statistics);
    const share = rows / maxRows;
    return { ...some, squaredError: some.squaredError * share, squaredOutput: some.squaredOutput * share };
  }
  const gram = gram64(statistics);
  const difference = Float64Array.from(dense, (w, i) => compressed[i] - w);
  const tokens = Math.max(1, statistics.tokens);
  // A change that no token sees is 0 but for rounding, which may leave it below.
  const squaredError = Math.max(0, quadraticTrace(difference, gram, rows, cols) / tokens);
  const squaredOutput = quadraticTrace(Float64Array.from(dense), gram, rows, cols) / tokens;
  return { squaredError, squaredOutput, relative: squaredOutput > 0 ? Math.sqrt(squaredError / squaredOutput) : 0 };
}

/** f32 [count, cols]: so many rows of [rows, cols], evenly spaced. */
export function everyNthRow(from: Float32Array, rows: number, cols: number, count: number): Float32Array {
  const out = new Float32Array(count * cols);
  for (let i = 0; i < count; i++) {
    const row = Math.floor((i * rows) / count) * cols;
    out.set(from.subarray(row, row + cols), i * cols);
  }
  return out;
}

/** The gram in f64, widened once when it was collected in f32. */
export function gram64(statistics: InputStatistics): Float64Array {
  const gram = statistics.get("gram");
  return gram instanceof Float64Array ? gram : statistics.derive("gram64", () => Float64Array.from(gram));
}
