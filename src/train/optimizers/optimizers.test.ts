import { describe, expect, test } from "vitest";
import { Random } from "../../core/index.js";
import type { State } from "../state.js";
import type { FloatArray } from "../values.js";
import { adam } from "./adam.js";
import { adamW } from "./adamW.js";
import { applyStep, chain, type Link } from "./link.js";
import { clipByNorm, descend, heavyBall } from "./links.js";
import { addSign, proximalAdam, shrink, softThreshold } from "./proximal.js";
import { constant, cosine } from "./schedule.js";

const only = (values: number[]) => new Map<string, FloatArray>([["w", Float64Array.from(values)]]);

/** Runs a link on a gradient that may depend on the weights. */
function descendOn(link: Link, start: number[], gradient: (w: FloatArray) => number[], steps: number): number[] {
  const weights = only(start);
  const state = link.init(weights);
  for (let step = 0; step < steps; step++) applyStep(link, weights, only(gradient(weights.get("w")!)), state, step);
  return Array.from(weights.get("w")!);
}

test("Adam is its published recurrence", () => {
  const gradients = [0.5, -2, 0.1, 0];
  let [m, v, w] = [0, 0, 1];
  for (const [t, g] of gradients.entries()) {
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    w -= (0.01 * (m / (1 - 0.9 ** (t + 1)))) / (Math.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8);
  }
  let t = 0;
  const [found] = descendOn(chain(adam(), descend(constant(0.01))), [1], () => [gradients[t++]], 4);
  expect(found).toBeCloseTo(w, 12);
});

test("AdamW's decay is apart from the moments: without a gradient weights shrink by rate · decay", () => {
  const [a, b] = descendOn(
    adamW({ rate: constant(0.1), weightDecay: 0.5, decays: () => true }),
    [2, -4],
    () => [0, 0],
    3,
  );
  expect(a).toBeCloseTo(2 * 0.95 ** 3, 12);
  expect(b).toBeCloseTo(-4 * 0.95 ** 3, 12);
});

test("clipping shortens a long gradient and leaves a short one", () => {
  const link = clipByNorm(5);
  for (const [g, expected] of [
    [
      [30, 40],
      [3, 4],
    ],
    [
      [3, 4],
      [3, 4],
    ],
  ]) {
    const updates = only(g);
    link.update!(updates, {}, updates, 0);
    for (const [i, v] of updates.get("w")!.entries()) expect(v).toBeCloseTo(expected[i], 12);
  }
});

test("heavy-ball momentum sums a geometric series", () => {
  const [w] = descendOn(chain(heavyBall(0.5), descend(constant(1))), [0], () => [1], 3);
  expect(w).toBeCloseTo(-(1 + 1.5 + 1.75), 12);
});

test("the cosine rises to its peak, falls to its end and stays there", () => {
  const rate = cosine({ peak: 1, final: 0.1, warmup: 4, steps: 104 });
  expect([0, 1, 2, 3].map(rate)).toEqual([0.25, 0.5, 0.75, 1]);
  expect(rate(4)).toBe(1);
  expect(rate(54)).toBeCloseTo(0.55, 12);
  expect(rate(104)).toBeCloseTo(0.1, 12);
  expect(rate(1000)).toBeCloseTo(0.1, 12);
});

/** (1/2N)‖y − Xb‖² + λ‖b‖₁ */
function lasso(seed: number, rows: number, cols: number, orthonormal: boolean) {
  const random = new Random(seed);
  let x = Array.from({ length: rows }, () => Array.from({ length: cols }, () => random.normal()));
  if (orthonormal) {
    // Gram-Schmidt, columns of length √N.
    const columns = Array.from({ length: cols }, (_, c) => x.map((row) => row[c]));
    for (const [c, column] of columns.entries()) {
      for (const other of columns.slice(0, c)) {
        const dot = column.reduce((sum, v, r) => sum + v * other[r], 0) / rows;
        for (let r = 0; r < rows; r++) column[r] -= dot * other[r];
      }
      const norm = Math.hypot(...column) / Math.sqrt(rows);
      for (let r = 0; r < rows; r++) column[r] /= norm;
    }
    x = x.map((_, r) => columns.map((column) => column[r]));
  }
  const y = x.map((row) => 2 * row[0] - row[1] + 0.3 * random.normal());
  const gradient = (b: FloatArray) => {
    const d = x.map((row, r) => row.reduce((sum, v, i) => sum + v * b[i], -y[r]));
    return Array.from({ length: cols }, (_, i) => x.reduce((sum, row, r) => sum + row[i] * d[r], 0) / rows);
  };
  return { x, y, gradient };
}

const everything = () => true;

describe("the Lasso", () => {
  const lambda = 0.2;

  test("ISTA on an orthonormal design ends at soft(Xᵀy/N, λ)", () => {
    const { gradient } = lasso(1, 40, 5, true);
    const link = chain(
      descend(constant(0.5)),
      shrink(() => lambda, constant(0.5), everything),
    );
    const found = descendOn(link, [0, 0, 0, 0, 0], gradient, 200);
    const expected = gradient(new Float64Array(5)).map((g) => softThreshold(-g, lambda));
    for (const [i, b] of found.entries()) expect(b).toBeCloseTo(expected[i], 8);
    expect(found.filter((b) => b === 0).length).toBeGreaterThan(0);
  });

  test.each([
    [
      "ISTA",
      chain(
        descend(constant(0.2)),
        shrink(() => lambda, constant(0.2), everything),
      ),
      1e-9,
    ],
    [
      "Adam with the proximal map in its metric",
      proximalAdam({ rate: cosine({ peak: 0.02, steps: 4000 }) }, () => lambda, everything),
      2e-3,
    ],
  ])("%s ends where the optimality conditions hold", (_name, link, tolerance) => {
    const { gradient } = lasso(2, 60, 6, false);
    const found = descendOn(link, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], gradient, 4000);
    const g = gradient(Float64Array.from(found));
    expect(found.filter((b) => b === 0).length).toBeGreaterThan(1);
    expect(found.filter((b) => b !== 0).length).toBeGreaterThan(1);
    for (const [i, b] of found.entries()) {
      if (b === 0) expect(Math.abs(g[i])).toBeLessThanOrEqual(lambda + tolerance);
      else expect(Math.abs(g[i] + lambda * Math.sign(b))).toBeLessThanOrEqual(tolerance);
    }
  });

  test("a λ of at least max|Xᵀy|/N leaves nothing", () => {
    const { gradient } = lasso(3, 40, 4, false);
    const largest = 1.001 * Math.max(...gradient(new Float64Array(4)).map(Math.abs));
    const link = chain(
      descend(constant(0.2)),
      shrink(() => largest, constant(0.2), everything),
    );
    expect(descendOn(link, [1, -1, 1, -1], gradient, 500)).toEqual([0, 0, 0, 0]);
  });

  test("the naive sub-gradient jitters around 0 by about the rate and is never 0", () => {
    const link = chain(
      addSign(() => 1, everything),
      adam(),
      descend(constant(0.01)),
    );
    const [w] = descendOn(link, [0.2], () => [0], 500);
    expect(w).not.toBe(0);
    expect(Math.abs(w)).toBeLessThan(0.05);
  });
});

test("links keep their state apart", () => {
  const link = chain(heavyBall(0.9), heavyBall(0.5), descend(constant(1)));
  const state = link.init(only([0])) as Record<string, State>;
  applyStep(link, only([0]), only([1]), state, 0);
  expect((state["0"].velocity as Record<string, FloatArray>).w[0]).toBe(1);
  expect((state["1"].velocity as Record<string, FloatArray>).w[0]).toBe(1);
  applyStep(link, only([0]), only([1]), state, 1);
  expect((state["0"].velocity as Record<string, FloatArray>).w[0]).toBe(1.9);
  expect((state["1"].velocity as Record<string, FloatArray>).w[0]).toBeCloseTo(2.4, 12);
});
