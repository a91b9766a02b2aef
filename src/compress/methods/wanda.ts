import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { Layer, PruneMethod } from "../contract.js";
import { maskedCopy, pruneByScore } from "../score.js";
import type { InputStatistics } from "../statistics.js";

const options = z.strictObject({
  alphaSearch: z
    ._default(z.boolean(), false)
    .check(z.describe("let rows differ in sparsity: each drops the same share α of its score, α found by bisection")),
});

/**
 * Score |w|·‖x‖₂ with the norm of the weight's input channel over all calibration tokens: the loss of removing the
 * weight if inputs were uncorrelated. Compared within each output row; kept weights are not touched.
 */
export const method: PruneMethod<z.output<typeof options>> = {
  id: "wanda",
  title: "Wanda",
  paper: "Sun, Liu, Bair, Kolter 2023, arXiv:2306.11695",
  options,
  patterns: {
    unstructured: ["row", "tensor"],
    nm: ["row"],
    block: ["tensor", "row"],
    rows: ["tensor"],
    columns: ["tensor"],
    neurons: ["tensor", "global"],
    heads: ["tensor", "global"],
  },
  needs: () => ["columnSquares"],
  problems: (_shape, pattern, { alphaSearch }) =>
    alphaSearch && pattern.type !== "unstructured" ? ["alphaSearch is for unstructured patterns only"] : [],
  score: wandaScores,
  prune(layer, statistics, pattern, { alphaSearch }) {
    const scores = wandaScores(layer, statistics);
    if (!alphaSearch) return pruneByScore(method, layer, scores, pattern);
    if (pattern.type !== "unstructured") throw new UsageError("alphaSearch is for unstructured patterns only");
    return maskedCopy(layer, searchAlpha(scores, layer.rows, layer.cols, pattern.sparsity));
  },
};

/** f32 [rows, cols], |w|·‖x‖₂. */
export function wandaScores(layer: Layer, statistics: InputStatistics): Float32Array {
  const norms = statistics.get("columnSquares").map(Math.sqrt);
  return layer.weight.map((w, i) => Math.abs(w) * norms[i % layer.cols]);
}

/**
 * Bisects the share α of each row's total score that is given up, until the whole matrix has the wanted sparsity to
 * within 0.001. A row loses its lowest scores as long as their sum is at most α of the total.
 */
function searchAlpha(scores: Float32Array, rows: number, cols: number, sparsity: number): Uint8Array {
  const sorted = scores.slice();
  const prefix = new Float64Array(scores.length);
  for (let start = 0; start < scores.length; start += cols) {
    sorted.subarray(start, start + cols).sort();
    let sum = 0;
    for (let i = start; i < start + cols; i++) prefix[i] = sum += sorted[i];
  }

  /** How many of a row's sorted scores fit into α of its total. */
  const prunedInRow = (row: number, alpha: number): number => {
    const start = row * cols;
    const limit = alpha * prefix[start + cols - 1];
    let low = 0;
    let high = cols;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (prefix[start + middle] <= limit) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  let low = 0;
  let high = 0.8;
  let alpha = 0.4;
  while (high - low >= 0.001) {
    let zeros = 0;
    for (let r = 0; r < rows; r++) zeros += prunedInRow(r, alpha);
    const achieved = zeros / scores.length;
    if (Math.abs(achieved - sparsity) <= 0.001) break;
    if (achieved > sparsity) high = alpha;
    else low = alpha;
    alpha = (low + high) / 2;
  }

  const keep = new Uint8Array(scores.length).fill(1);
  for (let r = 0; r < rows; r++) {
    const count = prunedInRow(r, alpha);
    if (count === 0) continue;
    const threshold = sorted[r * cols + count - 1];
    for (let i = r * cols; i < (r + 1) * cols; i++) if (scores[i] <= threshold) keep[i] = 0;
  }
  return keep;
}
