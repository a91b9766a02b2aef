import * as z from "zod/mini";
import { RarefyError } from "../../core/index.js";
import type { LowRankMethod } from "../contract.js";
import { choleskyInPlace, multiplyTransposed } from "../linalg/index.js";
import type { InputStatistics } from "../statistics.js";
import { spectrumOf } from "./spectrum.js";

const options = z.strictObject({});

/**
 * SVD of W·L with L·Lᵀ = Σ x·xᵀ: the squared singular values left out are exactly the squared output error on the
 * calibration inputs, so no matrix of that rank has less.
 */
export const method: LowRankMethod<z.output<typeof options>> = {
  id: "svdllm",
  title: "SVD-LLM",
  paper: "Wang, Zheng, Wan, Zhang 2024, arXiv:2403.07378",
  options,
  needs: () => ["gram"],
  decompose(layer, statistics) {
    const { rows, cols } = layer;
    const { lower, upper } = statistics.derive("whitening", () => whitening(statistics));
    const scaled = multiplyTransposed(Float64Array.from(layer.weight), upper, rows, cols, cols);
    return spectrumOf(scaled, layer, (v) => {
      for (let i = cols - 1; i >= 0; i--) {
        v[i] /= lower[i * cols + i];
        for (let k = 0; k < i; k++) v[k] -= lower[i * cols + k] * v[i];
      }
    });
  },
};

/**
 * The least that a squared pivot may be beside the mean of the diagonal: what is smaller is what rounding left of 0, and dividing by it
 * would make weights of any size where no input ever was.
 */
const leastPivot = 1e-12;

/** The lower Cholesky factor of the gram, and its transpose; a singular gram is damped until it factors. */
function whitening(statistics: InputStatistics): { lower: Float64Array; upper: Float64Array } {
  const n = statistics.cols;
  const gram = statistics.get("gram");
  let trace = 0;
  for (let i = 0; i < n; i++) trace += gram[i * n + i];
  for (let damping = 0; damping <= 1; damping = damping === 0 ? 1e-10 : damping * 10) {
    const lower = Float64Array.from(gram);
    // Inputs that were all zero would leave nothing to divide by.
    for (let i = 0; i < n; i++) lower[i * n + i] += (damping * trace) / n;
    if (!choleskyInPlace(lower, n) || smallestPivot(lower, n) ** 2 < (leastPivot * trace) / n) continue;
    const upper = new Float64Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) upper[j * n + i] = lower[i * n + j];
    return { lower, upper };
  }
  throw new RarefyError("the gram of the inputs is not finite or not positive");
}

function smallestPivot(lower: Float64Array, n: number): number {
  let smallest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < n; i++) smallest = Math.min(smallest, lower[i * n + i]);
  return smallest;
}
