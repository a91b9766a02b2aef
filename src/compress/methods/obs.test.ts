import { describe, expect, it } from "vitest";
import { countZeros, mean, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { dampedHessian } from "../hessian.js";
import { leastSquaresRow } from "../leastSquares.js";
import { InputStatistics } from "../statistics.js";
import { method as magnitude } from "./magnitude.js";
import { method as obd } from "./obd.js";
import { method } from "./obs.js";

const options = { damping: 0.01 };
const half = { type: "unstructured", sparsity: 0.5, scope: "row" } as const;

/** ½ δᵀ·H·δ of one row. */
function rowLoss(before: ArrayLike<number>, after: ArrayLike<number>, h: Float64Array): number {
  const n = before.length;
  let total = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) total += (after[i] - before[i]) * h[i * n + j] * (after[j] - before[j]);
  }
  return total / 2;
}

describe("obs", () => {
  const layer = syntheticLayer(41, 8, 24);
  const statistics = statisticsOf(layer);
  const h = dampedHessian(statistics, 0.01);
  const result = method.prune(layer, statistics, half, options);
  const row = (values: Float32Array | Uint8Array, r: number) => values.subarray(r * 24, (r + 1) * 24);

  it("one weight: no other choice, with the best values of all others, loses less", () => {
    const one = { type: "unstructured", sparsity: 1 / 24, scope: "row" } as const;
    const { weight, mask, loss } = method.prune(layer, statistics, one, options);
    let total = 0;
    for (let r = 0; r < layer.rows; r++) {
      const dense = row(layer.weight, r);
      const losses = Array.from({ length: 24 }, (_, q) => {
        const keep = Uint8Array.from({ length: 24 }, (_, c) => (c === q ? 0 : 1));
        return rowLoss(dense, leastSquaresRow(dense, keep, h), h);
      });
      const best = losses.indexOf(Math.min(...losses));
      expect(row(mask, r)[best]).toBe(0);
      expect(rowLoss(dense, row(weight, r), h)).toBeCloseTo(losses[best], 7);
      total += losses[best];
    }
    expect(loss).toBeCloseTo(total, 9);
  });

  it("after any number of removals the kept weights are the exact least-squares solution", () => {
    for (let r = 0; r < layer.rows; r++) {
      const best = leastSquaresRow(row(layer.weight, r), row(result.mask, r), h);
      best.forEach((w, c) => {
        expect(row(result.weight, r)[c]).toBeCloseTo(w, 5);
      });
    }
  });

  it("the total loss is the sum of the steps' losses", () => {
    let total = 0;
    for (let r = 0; r < layer.rows; r++) total += rowLoss(row(layer.weight, r), row(result.weight, r), h);
    expect(result.loss! / total).toBeCloseTo(1, 5);
  });

  it("prunes exactly as many per row, or per group", () => {
    for (let r = 0; r < layer.rows; r++) expect(countZeros(row(result.mask, r))).toBe(12);
    const { mask } = method.prune(layer, statistics, { type: "nm", keep: 1, group: 4 }, options);
    for (let at = 0; at < mask.length; at += 4) expect(countZeros(mask, at, at + 4)).toBe(3);
  });

  it("with a diagonal Hessian it is OBD: same mask, no update", () => {
    const gram = Float64Array.from({ length: 24 * 24 }, (_, i) => (i % 25 === 0 ? 1 + (i % 7) : 0));
    const diagonal = new InputStatistics(24, 1, { gram });
    const exact = method.prune(layer, diagonal, half, { damping: 0 });
    const simple = obd.prune(layer, diagonal, half, { curvature: "layer" });
    expect(exact.mask).toEqual(simple.mask);
    expect(exact.weight).toEqual(simple.weight);
  });

  it("stays exact over hundreds of removals", () => {
    const wide = syntheticLayer(43, 1, 400, { tokens: 900 });
    const of = statisticsOf(wide);
    const { weight, mask } = method.prune(wide, of, { ...half, sparsity: 0.75 }, options);
    expect(countZeros(mask)).toBe(300);
    const best = leastSquaresRow(wide.weight, mask, dampedHessian(of, 0.01));
    best.forEach((w, c) => {
      expect(weight[c]).toBeCloseTo(w, 5);
    });
  });

  it("on average over correlated layers: obs < obd < magnitude", () => {
    const losses = { obs: [] as number[], obd: [] as number[], magnitude: [] as number[] };
    for (let seed = 200; seed < 220; seed++) {
      const random = syntheticLayer(seed, 4, 24);
      const of = statisticsOf(random);
      const hessian = dampedHessian(of, 0.01);
      const lossOf = (weight: Float32Array) =>
        [0, 1, 2, 3].reduce((sum, r) => sum + rowLoss(row(random.weight, r), row(weight, r), hessian), 0);
      losses.obs.push(lossOf(method.prune(random, of, half, options).weight));
      losses.obd.push(lossOf(obd.prune(random, of, half, { curvature: "layer" }).weight));
      losses.magnitude.push(lossOf(magnitude.prune(random, of, half, { counting: "exact" }).weight));
    }
    expect(mean(losses.obs)).toBeLessThan(mean(losses.obd));
    expect(mean(losses.obd)).toBeLessThan(mean(losses.magnitude));
  });

  it("says what it cannot take", () => {
    expect(method.problems!({ rows: 1, cols: 1025 }, half, options)[0]).toMatch(/1025 columns/);
    expect(() => method.prune(layer, statistics, { ...half, scope: "tensor" }, options)).toThrow(/not per tensor/);
    expect(() => method.prune(layer, statistics, { type: "nm", keep: 2, group: 4, along: "column" }, options)).toThrow(
      /rows one by one/,
    );
  });
});

describe("obd", () => {
  const layer = syntheticLayer(42, 8, 24);

  it("takes the curvature from squared gradients when asked", () => {
    const squaredGradients = Float32Array.from(layer.weight, (_, i) => 1 + ((i * 13) % 29));
    const statistics = new InputStatistics(24, 1, { squaredGradients });
    const { mask } = obd.prune(layer, statistics, { type: "unstructured", sparsity: 0.5 }, { curvature: "gradients" });
    const saliency = Array.from(layer.weight, (w, i) => w * w * squaredGradients[i]);
    const lost = saliency.filter((_, i) => mask[i] === 0);
    const kept = saliency.filter((_, i) => mask[i] === 1);
    expect(lost).toHaveLength(96);
    expect(Math.max(...lost)).toBeLessThanOrEqual(Math.min(...kept));
    expect(obd.needs({ curvature: "gradients" })).toEqual(["squaredGradients"]);
  });

  it("its squared score is the loss of removing one weight alone", () => {
    const statistics = statisticsOf(layer);
    const score = obd.score!(layer, statistics, { curvature: "layer" });
    const h = dampedHessian(statistics, 0);
    for (const i of [0, 30, 191]) {
      const after = layer.weight.slice(0, 24).fill(0);
      const before = after.slice();
      before[i % 24] = layer.weight[i];
      expect(score[i] ** 2).toBeCloseTo(rowLoss(before, after, h), 6);
    }
  });
});
