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

/** @param dense, compressed f32 [rows, cols] @param statistics with the gram of the input */
export function reconstructionError(
  dense: Float32Array,
  compressed: Float32Array,
  { rows, cols }: Shape,
  statistics: InputStatistics,
): ReconstructionError {
  const gram = gram64(statistics);
  const difference = Float64Array.from(dense, (w, i) => compressed[i] - w);
  const tokens = Math.max(1, statistics.tokens);
  const squaredError = quadraticTrace(difference, gram, rows, cols) / tokens;
  const squaredOutput = quadraticTrace(Float64Array.from(dense), gram, rows, cols) / tokens;
  return { squaredError, squaredOutput, relative: squaredOutput > 0 ? Math.sqrt(squaredError / squaredOutput) : 0 };
}

/** The gram in f64, widened once when it was collected in f32. */
export function gram64(statistics: InputStatistics): Float64Array {
  const gram = statistics.get("gram");
  return gram instanceof Float64Array ? gram : statistics.derive("gram64", () => Float64Array.from(gram));
}
