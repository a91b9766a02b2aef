import { describe, expect, it } from "vitest";
import { Random, UsageError } from "../../core/index.js";
import {
  fisherCost,
  fisherDiagonal,
  fitLatency,
  latencyOf,
  type MaskProblem,
  rearrangeMask,
  searchMasks,
  searchMasksByLatency,
  tuneMask,
  type UnitMasks,
} from "./index.js";

const random = new Random(7);
const drawn = (length: number) => Float64Array.from({ length }, () => random.uniform());
const normal = (length: number) => Float64Array.from({ length }, () => random.normal());

/** All masks of so many units. */
function* masksOf(units: number): Generator<Uint8Array> {
  for (let bits = 0; bits < 2 ** units; bits++) yield Uint8Array.from({ length: units }, (_, u) => (bits >> u) & 1);
}

const kept = (importance: readonly Float64Array[], masks: readonly Uint8Array[]) =>
  importance.reduce((sum, of, b) => sum + of.reduce((all, value, u) => all + value * masks[b][u], 0), 0);
const countOf = (masks: readonly Uint8Array[]) => masks.reduce((sum, mask) => sum + mask.reduce((n, m) => n + m, 0), 0);

describe("search under a budget of multiply-adds", () => {
  const importances = { heads: [drawn(2), drawn(2)], neurons: [drawn(4), drawn(4)] };
  const costs = { heads: 5, neurons: 1 };
  const worth = ({ heads, neurons }: UnitMasks) => kept(importances.heads, heads) + kept(importances.neurons, neurons);

  it.each([5, 7, 11, 13, 17, 22, 28])("keeps the most that fits in %d", (budget) => {
    const found = searchMasks(importances, costs, budget);
    expect(5 * countOf(found.heads) + countOf(found.neurons)).toBeLessThanOrEqual(budget);
    let best = 0;
    for (const heads of masksOf(4)) {
      if (countOf([heads]) === 0) continue;
      for (const neurons of masksOf(8)) {
        if (5 * countOf([heads]) + countOf([neurons]) > budget) continue;
        const split = { heads: [heads.slice(0, 2), heads.slice(2)], neurons: [neurons.slice(0, 4), neurons.slice(4)] };
        best = Math.max(best, worth(split));
      }
    }
    expect(worth(found)).toBeCloseTo(best, 12);
  });

  it("keeps everything where everything fits, and says when nothing does", () => {
    const all = searchMasks(importances, costs, 28);
    expect([countOf(all.heads), countOf(all.neurons)]).toEqual([4, 8]);
    expect(() => searchMasks(importances, costs, 4.9)).toThrow(UsageError);
  });
});

describe("rearrangement", () => {
  it("never costs more than the lowest diagonal, and is the best there is most of the time", () => {
    let best = 0;
    const trials = 20;
    for (let trial = 0; trial < trials; trial++) {
      const [units, batches] = [8, 5];
      const gradients = { values: normal(units * batches), batches, units };
      const diagonal = fisherDiagonal(gradients);
      const order = Array.from(diagonal.keys()).sort((a, b) => diagonal[a] - diagonal[b]);
      const lowest = Uint8Array.from(diagonal, (_, u) => (order.indexOf(u) < 4 ? 0 : 1));
      const mask = rearrangeMask(gradients, 4);
      expect(countOf([mask])).toBe(4);
      const cost = fisherCost(gradients, mask);
      expect(cost).toBeLessThanOrEqual(fisherCost(gradients, lowest) + 1e-12);
      let least = Number.POSITIVE_INFINITY;
      for (const other of masksOf(units))
        if (countOf([other]) === 4) least = Math.min(least, fisherCost(gradients, other));
      if (cost <= least + 1e-12) best++;
    }
    expect(best).toBeGreaterThan(trials / 4);
  });

  it("is zᵀ·F·z with F = Σ g·gᵀ", () => {
    const gradients = { values: normal(12), batches: 3, units: 4 };
    const z = [1, 0, 1, 1];
    let cost = 0;
    for (let i = 0; i < 4; i++) {
      for (let j = 0; j < 4; j++) {
        for (let b = 0; b < 3; b++) cost += z[i] * z[j] * gradients.values[b * 4 + i] * gradients.values[b * 4 + j];
      }
    }
    expect(
      fisherCost(
        gradients,
        Uint8Array.from(z, (gone) => 1 - gone),
      ),
    ).toBeCloseTo(cost, 12);
  });

  it.each([0, 1, 3, 4])("leaves %d of 4 units", (count) => {
    expect(countOf([rearrangeMask({ values: normal(12), batches: 3, units: 4 }, count)])).toBe(count);
  });
});

describe("tuning", () => {
  const [rows, units, run, tokens] = [6, 4, 3, 400];
  const cols = units * run;
  const weight = Float32Array.from(normal(rows * cols));
  const inputs = normal(tokens * cols);

  /** What a map whose units are multiplied by factors gives, less a constant, as sums over tokens. */
  function problemOf(factors: readonly number[], constant: number): MaskProblem {
    const gram = new Float64Array(cols * cols);
    const cross = new Float64Array(rows * cols);
    const sums = new Float64Array(cols);
    let outputs = 0;
    for (let t = 0; t < tokens; t++) {
      const x = inputs.subarray(t * cols, (t + 1) * cols);
      for (let i = 0; i < cols; i++) {
        sums[i] += x[i];
        for (let j = 0; j < cols; j++) gram[i * cols + j] += x[i] * x[j];
      }
      for (let r = 0; r < rows; r++) {
        let wanted = constant;
        for (let c = 0; c < cols; c++) wanted += factors[Math.floor(c / run)] * weight[r * cols + c] * x[c];
        outputs += wanted;
        for (let c = 0; c < cols; c++) cross[r * cols + c] += wanted * x[c];
      }
    }
    return { weight, rows, cols, units, gram, cross, constant: { inputs: sums, outputs, tokens } };
  }

  it("finds the factors that made what is wanted, beside a constant", () => {
    const factors = [0.5, 1.75, -1, 1];
    const found = tuneMask(problemOf(factors, 0.25))!;
    for (const [u, factor] of factors.entries()) expect(found[u]).toBeCloseTo(factor, 4);
    const { constant: _, ...without } = problemOf(factors, 0);
    const again = tuneMask(without)!;
    for (const [u, factor] of factors.entries()) expect(again[u]).toBeCloseTo(factor, 4);
  });

  it("leaves what is as it was", () => {
    for (const factor of tuneMask(problemOf([1, 1, 1, 1], 0))!) expect(factor).toBeCloseTo(1, 6);
  });

  it("is held back by the damping where little is known", () => {
    const { constant: _, ...problem } = problemOf([2, 2, 2, 2], 0);
    const scaled = { ...problem, gram: problem.gram.map((v) => v * 1e-6), cross: problem.cross.map((v) => v * 1e-6) };
    for (const factor of tuneMask(scaled)!) expect(Math.abs(factor - 1)).toBeLessThan(0.1);
  });

  it("gives nothing where factors leave all bounds or numbers are none", () => {
    expect(tuneMask(problemOf([1, 1, 12, 1], 0))).toBeUndefined();
    const { constant: _, ...problem } = problemOf([1, 1, 1, 1], 0);
    expect(tuneMask({ ...problem, cross: problem.cross.map(() => Number.NaN) })).toBeUndefined();
  });
});

describe("search under a budget of time", () => {
  const heads = { base: 2, threshold: 1, perUnit: 1 };
  const neurons = { base: 1, threshold: 2, perUnit: 0.5 };

  it("fits what was measured, flat and then rising", () => {
    const table = [1, 2, 3, 4, 5, 6].map((units) => ({
      units,
      milliseconds: latencyOf({ ...neurons, threshold: 3 }, units),
    }));
    const fitted = fitLatency(table);
    expect(fitted.threshold).toBe(3);
    expect(fitted.base).toBeCloseTo(1, 12);
    expect(fitted.perUnit).toBeCloseTo(0.5, 12);
    const falling = fitLatency([1, 2, 3].map((units) => ({ units, milliseconds: 5 - units })));
    expect(falling.perUnit).toBe(0);
    expect(latencyOf(falling, 0)).toBe(0);
  });

  it.each([0.2, 0.35, 0.5, 0.75, 1])("keeps within %d of the time what is worth most", (share) => {
    const importances = { heads: [drawn(2), drawn(2)], neurons: [drawn(3), drawn(3)] };
    const timeOf = (masks: UnitMasks) =>
      masks.heads.reduce((sum, mask) => sum + latencyOf(heads, countOf([mask])), 0) +
      masks.neurons.reduce((sum, mask) => sum + latencyOf(neurons, countOf([mask])), 0);
    const all = 2 * latencyOf(heads, 2) + 2 * latencyOf(neurons, 3);
    const found = searchMasksByLatency(importances, { heads, neurons }, share);
    expect(timeOf(found)).toBeLessThanOrEqual(share * all + 1e-9);
    expect(found.milliseconds).toBeCloseTo(timeOf(found), 12);
    const worth = (masks: UnitMasks) => kept(importances.heads, masks.heads) + kept(importances.neurons, masks.neurons);
    let best = 0;
    for (const h of masksOf(4)) {
      for (const n of masksOf(6)) {
        const masks = { heads: [h.slice(0, 2), h.slice(2)], neurons: [n.slice(0, 3), n.slice(3)] };
        if (timeOf(masks) <= share * all) best = Math.max(best, worth(masks));
      }
    }
    // Whole layers go by what their base holds, which is not always what is best.
    expect(worth(found)).toBeGreaterThanOrEqual(0.8 * best);
    if (share === 1) expect(worth(found)).toBeCloseTo(best, 12);
  });
});
