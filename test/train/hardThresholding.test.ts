import { describe, expect, test } from "vitest";
import { patternSchema } from "../../src/compress/internal.js";
import { Random } from "../../src/core/index.js";
import { method as iht } from "../../src/train/methods/iht.js";
import { applyStep, chain } from "../../src/train/optimizers/link.js";
import { descend } from "../../src/train/optimizers/links.js";
import { projectSparse } from "../../src/train/optimizers/projection.js";
import { constant } from "../../src/train/optimizers/schedule.js";
import { unitsOf } from "../../src/train/selection/patterns.js";
import { supportOverlap } from "../../src/train/selection/retention.js";
import { Training } from "../../src/train/training.js";
import { threeLayerBatch, threeLayers, threeLayerWeights } from "./threeLayers.js";

/** f(w) = ½‖Xw − y‖² over w ∈ ℝⁿ with at most s non-zeros. */
function leastSquares(seed: number, n: number, rows = 30) {
  const random = new Random(seed);
  const x = Array.from({ length: rows }, () => Array.from({ length: n }, () => random.normal()));
  const y = Array.from({ length: rows }, () => random.normal());
  const residual = (w: ArrayLike<number>) => x.map((row, r) => row.reduce((sum, v, i) => sum + v * w[i], -y[r]));
  const value = (w: ArrayLike<number>) => residual(w).reduce((sum, d) => sum + (d * d) / 2, 0);
  const gradient = (w: ArrayLike<number>) => {
    const d = residual(w);
    return Float32Array.from({ length: n }, (_, i) => x.reduce((sum, row, r) => sum + row[i] * d[r], 0));
  };
  // The largest eigenvalue of XᵀX is at most its trace.
  const bound = x.flat().reduce((sum, v) => sum + v * v, 0);
  let v = Array.from({ length: n }, () => 1);
  let lipschitz = bound;
  for (let k = 0; k < 200; k++) {
    const xv = x.map((row) => row.reduce((sum, a, i) => sum + a * v[i], 0));
    const next = v.map((_, i) => x.reduce((sum, row, r) => sum + row[i] * xv[r], 0));
    lipschitz = Math.hypot(...next);
    v = next.map((a) => a / lipschitz);
  }
  return { x, y, value, gradient, lipschitz };
}

/** The least f over every support of size s, by solving each. */
function bestOfAllSupports({ x, y, value }: ReturnType<typeof leastSquares>, n: number, s: number): number {
  let best = Number.POSITIVE_INFINITY;
  for (let bits = 0; bits < 1 << n; bits++) {
    const support = Array.from({ length: n }, (_, i) => i).filter((i) => (bits >> i) & 1);
    if (support.length !== s) continue;
    const w = new Float64Array(n);
    // Gauss-Seidel on the normal equations converges: they are positive definite.
    for (let sweep = 0; sweep < 300; sweep++) {
      for (const i of support) {
        let numerator = 0;
        let denominator = 0;
        for (const [r, row] of x.entries()) {
          const others = support.reduce((sum, j) => (j === i ? sum : sum + row[j] * w[j]), 0);
          numerator += row[i] * (y[r] - others);
          denominator += row[i] ** 2;
        }
        w[i] = numerator / denominator;
      }
    }
    best = Math.min(best, value(w));
  }
  return best;
}

describe("with step 1/L, L above the Lipschitz constant", () => {
  test.each([1, 2, 3])(
    "f falls, the end is L-stationary, and no support does better than the best (seed %i)",
    (seed) => {
      const [n, s] = [9, 3];
      const problem = leastSquares(seed, n);
      const L = 1.05 * problem.lipschitz;
      const weights = new Map([["w", new Float32Array(n)]]);
      const masks = new Map([["w", new Uint8Array(n)]]);
      const [entries] = unitsOf([{ name: "w", shape: [1, n], layer: "0", role: "inner" }], patternSchema.parse(0));
      const link = chain(
        descend(constant(1 / L)),
        projectSparse([{ units: entries, keep: s }], masks, () => true),
      );
      const state = link.init(weights);
      const w = weights.get("w")!;
      let last = problem.value(w);
      for (let step = 0; step < 3000; step++) {
        applyStep(link, weights, new Map([["w", problem.gradient(w)]]), state, step);
        const now = problem.value(w);
        expect(now).toBeLessThanOrEqual(last * (1 + 1e-6));
        last = now;
        expect(w.filter((v) => v !== 0)).toHaveLength(s);
      }
      const gradient = problem.gradient(w);
      const smallest = Math.min(...w.filter((v) => v !== 0).map(Math.abs));
      for (let i = 0; i < n; i++) {
        if (w[i] !== 0) expect(Math.abs(gradient[i])).toBeLessThan(1e-3);
        else expect(Math.abs(gradient[i])).toBeLessThanOrEqual(L * smallest * (1 + 1e-4));
      }
      expect(last).toBeGreaterThanOrEqual(bestOfAllSupports(problem, n, s) * (1 - 1e-5));
    },
  );
});

function train(options: object, steps = 60): Training {
  return new Training({
    objective: threeLayers(),
    weights: threeLayerWeights(3),
    optimizer: { rate: constant(0.005) },
    steps,
    seed: 1,
    method: (context) => iht.start(context, iht.options.parse(options)),
  });
}

const nonZeros = (values: ArrayLike<number>) => Array.from(values).filter((w) => w !== 0).length;

test("global: every iterate has exactly s non-zeros over all layers", async () => {
  const training = train({ density: 0.3, scope: "global" });
  for (let step = 0; step < 20; step++) {
    await training.advance(threeLayerBatch(step));
    const total = ["a", "b", "c"].reduce((sum, name) => sum + nonZeros(training.weights.get(name)!), 0);
    expect(total).toBe(Math.round(0.3 * (96 + 144 + 48)));
  }
});

test("layer-wise: the inner layer has its share, first and last stay dense", async () => {
  const training = train({ density: 0.3 });
  for (let step = 0; step < 20; step++) await training.advance(threeLayerBatch(step));
  expect(["a", "b", "c"].map((name) => nonZeros(training.weights.get(name)!))).toEqual([96, Math.round(0.3 * 144), 48]);
});

test("retention counts the steps after which a weight was not zero", async () => {
  const training = train({ density: 0.3, countRetention: true });
  const counted = new Int32Array(144);
  for (let step = 0; step < 15; step++) {
    await training.advance(threeLayerBatch(step));
    for (const [i, w] of training.weights.get("b")!.entries()) if (w !== 0) counted[i]++;
  }
  expect((training.run.state.retention as Record<string, Int32Array>).b).toEqual(counted);
});

test("between projections weights move freely; at the interval there are s again", async () => {
  const training = train({ density: 0.3, interval: 4 });
  const counts: number[] = [];
  for (let step = 0; step < 8; step++) {
    await training.advance(threeLayerBatch(step));
    counts.push(nonZeros(training.weights.get("b")!));
  }
  expect(counts[3]).toBe(43);
  expect(counts[7]).toBe(43);
  expect(counts[5]).toBeGreaterThan(43);
});

test("positions that have been stable for three checks are frozen and then stay", async () => {
  const training = train({ density: 0.3, freezeOverlap: 0.8, checkEvery: 5 });
  let frozenAt = -1;
  let support: boolean[] = [];
  for (let step = 0; step < 60; step++) {
    await training.advance(threeLayerBatch(step));
    const now = Array.from(training.weights.get("b")!, (w) => w !== 0);
    if (frozenAt >= 0) expect(now).toEqual(support);
    else if (training.run.metrics!().frozen === 1) frozenAt = step;
    support = now;
  }
  expect(frozenAt).toBeGreaterThanOrEqual(14);
});

test("the overlap is the share of the support among the most often kept, ties in its favour", () => {
  const counts = Int32Array.of(9, 9, 5, 5, 1, 0);
  expect(supportOverlap(counts, Uint8Array.of(1, 1, 1, 0, 0, 0))).toBe(1);
  expect(supportOverlap(counts, Uint8Array.of(1, 0, 0, 1, 1, 0))).toBeCloseTo(2 / 3);
  expect(supportOverlap(counts, Uint8Array.of(0, 0, 0, 0, 1, 1))).toBe(0);
  // The most often kept has one of the two places; one of the tied ones gets the other.
  expect(supportOverlap(Int32Array.of(9, 5, 5), Uint8Array.of(0, 1, 1))).toBe(0.5);
});
