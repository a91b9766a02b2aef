import { z } from "zod";
import { UsageError } from "../../core/index.js";
import type { PruneMethod } from "../contract.js";
import { dampedHessian, layerFactor } from "../hessian.js";
import { inverseFactor, inverseHessian } from "../linalg/index.js";
import { type Pattern, zerosFor } from "../pattern.js";
import { finishedWeight, scopeFor, workingCopy } from "../score.js";

const options = z.strictObject({
  damping: z.number().min(0).max(1).default(0.01).describe("share of the mean curvature added to the diagonal"),
});

const largestCols = 1024;
/** Down-dating loses digits; after this many steps the inverse is made afresh. */
const stepsPerInverse = 256;

/**
 * Removes the weight with the least w²/(2·[H⁻¹]), moves all others of its row to make good for it, and repeats. Every row
 * has its own running inverse, O(cols³) per row: exact and slow, for small layers and as the reference for SparseGPT.
 */
export const method: PruneMethod<z.output<typeof options>> = {
  id: "obs",
  title: "Optimal Brain Surgeon",
  paper: "Hassibi, Stork 1993, NIPS 5",
  options,
  patterns: { unstructured: ["row"], nm: ["row"] },
  needs: () => ["gram"],
  // Half of the weights removed, one after the other, each with a change of the row's inverse.
  multiplyAdds: ({ rows, cols }) => (rows * cols ** 3) / 2,
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
    const hessian = dampedHessian(statistics, damping);
    const { weights, keep } = workingCopy(layer, factor.dead);
    let loss = 0;
    for (let r = 0; r < rows; r++) {
      const row = {
        weights: weights.subarray(r * cols, (r + 1) * cols),
        keep: keep.subarray(r * cols, (r + 1) * cols),
      };
      loss += surgeon(row.weights, row.keep, inverse.slice(), hessian, quotas(pattern, cols));
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

/** Prunes one row in place. @returns Σ of the losses of its steps */
function surgeon(
  w: Float64Array,
  keep: Uint8Array,
  inverse: Float64Array,
  hessian: Float64Array,
  { group, remaining }: { group: number; remaining: Int32Array },
): number {
  const n = w.length;
  let running = inverse;
  let steps = 0;
  let loss = 0;

  const remove = (q: number) => {
    const curvature = running[q * n + q];
    const factor = w[q] / curvature;
    loss += (w[q] * factor) / 2;
    for (let i = 0; i < n; i++) w[i] -= factor * running[q * n + i];
    keep[q] = 0;
    const row = running.slice(q * n, (q + 1) * n);
    for (let i = 0; i < n; i++) {
      const share = row[i] / curvature;
      if (share === 0) continue;
      for (let j = 0; j < n; j++) running[i * n + j] -= share * row[j];
    }
    for (let i = 0; i < n; i++) running[q * n + i] = running[i * n + q] = 0;
    if (++steps % stepsPerInverse === 0) running = inverseOfKept(hessian, keep);
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
      const saliency = w[i] ** 2 / running[i * n + i];
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

/** (H_KK)⁻¹ of the kept columns, spread out to [n, n] with zeros elsewhere. */
function inverseOfKept(hessian: Float64Array, keep: Uint8Array): Float64Array {
  const n = keep.length;
  const kept = Array.from(keep.keys()).filter((i) => keep[i] === 1);
  const block = new Float64Array(kept.length ** 2);
  for (let a = 0; a < kept.length; a++) {
    for (let b = 0; b < kept.length; b++) block[a * kept.length + b] = hessian[kept[a] * n + kept[b]];
  }
  const small = inverseHessian(inverseFactor(block, kept.length, 1, 0), kept.length);
  const out = new Float64Array(n * n);
  for (let a = 0; a < kept.length; a++) {
    for (let b = 0; b < kept.length; b++) out[kept[a] * n + kept[b]] = small[a * kept.length + b];
  }
  return out;
}
