import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { PruneMethod } from "../contract.js";
import { layerFactor } from "../hessian.js";
import { inverseHessian } from "../linalg/index.js";
import { type Pattern, zerosFor } from "../pattern.js";
import { finishedWeight, scopeFor, workingCopy } from "../score.js";

const options = z.strictObject({
  damping: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.01)
    .check(z.describe("share of the mean curvature added to the diagonal")),
});

const largestCols = 1024;

/**
 * Removes the weight with the least w²/(2·[H⁻¹]), moves all others of its row to make good for it, and repeats. Every row
 * has its own running inverse, O(cols · removed²) per row: exact and slow, for small layers and as the reference for SparseGPT.
 */
export const method: PruneMethod<z.output<typeof options>> = {
  id: "obs",
  title: "Optimal Brain Surgeon",
  paper: "Hassibi, Stork 1993, NIPS 5",
  options,
  patterns: { unstructured: ["row"], nm: ["row"] },
  needs: () => ["gram"],
  // Half of the weights removed, one after the other; each needs a line of the inverse, changed by all removals before it.
  multiplyAdds: ({ rows, cols }) => (rows * cols ** 3) / 8,
  problems({ cols }, pattern) {
    const problems = cols > largestCols ? [`${cols} columns are more than the ${largestCols} it can take`] : [];
    if (pattern.type === "nm" && pattern.along === "column") problems.push("obs prunes rows one by one, not columns");
    return problems;
  },
  prune(layer, statistics, pattern, { damping }) {
    const problems = method.problems!(layer, pattern, { damping });
    if (problems.length > 0) throw new UsageError(problems.join("; "));
    scopeFor(method, pattern);
    const { rows, cols } = layer;
    const factor = layerFactor(statistics, damping);
    const inverse = statistics.derive(`inverseHessian ${damping}`, () => inverseHessian(factor, cols));
    const { weights, keep } = workingCopy(layer, factor.dead);
    const changes = new Float64Array(cols * cols);
    let loss = 0;
    for (let r = 0; r < rows; r++) {
      const row = {
        weights: weights.subarray(r * cols, (r + 1) * cols),
        keep: keep.subarray(r * cols, (r + 1) * cols),
      };
      loss += surgeon(row.weights, row.keep, inverse, changes, quotas(pattern, cols));
    }
    return { weight: finishedWeight(weights, keep), mask: keep, loss };
  },
};

/** How many weights must go from each run of `group` columns. */
function quotas(pattern: Pattern, cols: number): { group: number; remaining: Int32Array } {
  if (pattern.type === "nm") {
    const { keep, group } = pattern;
    return { group, remaining: new Int32Array(cols / group).fill(group - keep) };
  }
  if (pattern.type !== "unstructured") throw new UsageError(`obs has no pattern ${pattern.type}`);
  return { group: cols, remaining: Int32Array.of(zerosFor(cols, pattern.sparsity)) };
}

/**
 * Prunes one row in place. Of the running inverse H⁻¹ − Σ vₜ·vₜᵀ, vₜ = its line of the t-th removed weight over √ of that line's
 * diagonal entry, only the diagonal is kept up to date; a line is worked out when its weight is removed.
 * @param inverse of the Hessian of all columns, left as it is
 * @param changes room for the vₜ
 * @returns Σ of the losses of its steps
 */
function surgeon(
  w: Float64Array,
  keep: Uint8Array,
  inverse: Float64Array,
  changes: Float64Array,
  { group, remaining }: { group: number; remaining: Int32Array },
): number {
  const n = w.length;
  const diagonal = w.map((_, i) => inverse[i * n + i]);
  let steps = 0;
  let loss = 0;

  const remove = (q: number) => {
    const line = lineOf(q, inverse, changes.subarray(0, steps * n), n);
    const factor = w[q] / line[q];
    loss += (w[q] * factor) / 2;
    const root = Math.sqrt(line[q]);
    const change = changes.subarray(steps * n, ++steps * n);
    for (let i = 0; i < n; i++) {
      w[i] -= factor * line[i];
      change[i] = line[i] / root;
      diagonal[i] -= change[i] ** 2;
    }
    keep[q] = 0;
  };

  // Zeros of earlier pruning leave first: they count towards the quota and must not come back to life.
  for (let i = 0; i < n; i++) {
    if (keep[i] === 1) continue;
    remove(i);
    remaining[Math.floor(i / group)]--;
  }
  for (;;) {
    let best = -1;
    let bestLoss = Number.POSITIVE_INFINITY;
    for (let i = 0; i < n; i++) {
      if (keep[i] === 0 || remaining[Math.floor(i / group)] <= 0) continue;
      const saliency = w[i] ** 2 / diagonal[i];
      if (saliency < bestLoss) {
        best = i;
        bestLoss = saliency;
      }
    }
    if (best < 0) return loss;
    remove(best);
    remaining[Math.floor(best / group)]--;
  }
}

/** Line q of inverse − Σ vₜ·vₜᵀ. Four vₜ at a time: the line is read and written a quarter as often. */
function lineOf(q: number, inverse: Float64Array, changes: Float64Array, n: number): Float64Array {
  const line = inverse.slice(q * n, (q + 1) * n);
  const whole = changes.length - (changes.length % (4 * n));
  for (let at = 0; at < whole; at += 4 * n) {
    const [a, b, c, d] = [at, at + n, at + 2 * n, at + 3 * n];
    const [fa, fb, fc, fd] = [changes[a + q], changes[b + q], changes[c + q], changes[d + q]];
    for (let i = 0; i < n; i++) {
      line[i] -= fa * changes[a + i] + fb * changes[b + i] + fc * changes[c + i] + fd * changes[d + i];
    }
  }
  for (let at = whole; at < changes.length; at += n) {
    for (let i = 0; i < n; i++) line[i] -= changes[at + q] * changes[at + i];
  }
  return line;
}
