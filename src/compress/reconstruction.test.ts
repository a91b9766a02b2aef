import { expect, it } from "vitest";
import { outputError, statisticsOf, syntheticLayer } from "../../test/support/layers.js";
import { Random } from "../core/index.js";
import { quadraticTrace } from "./linalg/index.js";
import { reconstructionError } from "./reconstruction.js";
import { InputStatistics } from "./statistics.js";

// 130 columns cross the panels (96) of the quadratic form.
const layer = syntheticLayer(17, 10, 130, { tokens: 200 });
const statistics = statisticsOf(layer);
const rounded = layer.weight.map((w) => Math.round(w * 40) / 40);

/** f32 [rows, cols]: rows that are orthogonal to every input. */
function orthogonalToInputs({ rows, cols, inputs }: typeof layer, seed: number): Float32Array {
  const random = new Random(seed);
  const basis: Float64Array[] = [];
  const rest = (values: Float64Array): Float64Array => {
    // Twice, for what rounding left.
    for (const b of [...basis, ...basis]) {
      const share = values.reduce((sum, v, c) => sum + v * b[c], 0);
      for (let c = 0; c < cols; c++) values[c] -= share * b[c];
    }
    return values;
  };
  for (let at = 0; at < inputs.length; at += cols) {
    const own = rest(Float64Array.from(inputs.subarray(at, at + cols)));
    const length = Math.hypot(...own);
    basis.push(own.map((v) => v / length));
  }
  const change = Array.from({ length: rows }, () => rest(Float64Array.from({ length: cols }, () => random.normal())));
  return Float32Array.from(change.flatMap((row) => [...row]));
}

it("the output error from the gram is the one from the inputs", () => {
  const { squaredError, squaredOutput, relative } = reconstructionError(layer.weight, rounded, layer, statistics);
  const error = outputError(layer, rounded);
  const output = outputError(layer, new Float32Array(layer.weight.length));
  expect(squaredError / error).toBeCloseTo(1, 9);
  expect(squaredOutput / output).toBeCloseTo(1, 9);
  expect(relative).toBeCloseTo(Math.sqrt(error / output), 9);
});

it("some rows stand for all: every second of ten", () => {
  const rows = (from: Float32Array) =>
    Float32Array.from([0, 2, 4, 6, 8].flatMap((r) => [...from.subarray(r * 130, (r + 1) * 130)]));
  const some = reconstructionError(rows(layer.weight), rows(rounded), { rows: 5, cols: 130 }, statistics);
  const estimate = reconstructionError(layer.weight, rounded, layer, statistics, 5);
  expect(estimate.relative).toBeCloseTo(some.relative, 12);
  expect(estimate.squaredError / some.squaredError).toBeCloseTo(2, 12);
  const all = reconstructionError(layer.weight, rounded, layer, statistics);
  expect(reconstructionError(layer.weight, rounded, layer, statistics, 99)).toEqual(all);
});

it("takes a gram in f32, and a layer without output", () => {
  const gram = Float32Array.from(statistics.get("gram"));
  const single = new InputStatistics(130, statistics.tokens, { gram });
  const { relative } = reconstructionError(layer.weight, rounded, layer, single);
  expect(relative).toBeCloseTo(reconstructionError(layer.weight, rounded, layer, statistics).relative, 5);
  const nothing = new Float32Array(layer.weight.length);
  expect(reconstructionError(nothing, nothing, layer, statistics).relative).toBe(0);
});

it("a change that no token sees is none, although its rounded sum may be negative", () => {
  const few = syntheticLayer(3, 16, 48, { tokens: 6 });
  const gram = Float32Array.from(statisticsOf(few).get("gram"));
  const single = new InputStatistics(48, 6, { gram });
  const sums = [];
  for (let seed = 0; seed < 20; seed++) {
    const change = orthogonalToInputs(few, seed);
    const changed = few.weight.map((w, i) => w + change[i]);
    const difference = Float64Array.from(few.weight, (w, i) => changed[i] - w);
    sums.push(quadraticTrace(difference, Float64Array.from(gram), 16, 48));
    const { squaredError, relative } = reconstructionError(few.weight, changed, few, single);
    expect(squaredError).toBeGreaterThanOrEqual(0);
    expect(relative).toBeLessThan(1e-3);
  }
  // Or this would not be such a case.
  expect(Math.min(...sums)).toBeLessThan(0);
});

it("the quadratic form equals the plain sums", () => {
  const d = Float64Array.from(layer.weight);
  const g = Float64Array.from(statistics.get("gram"));
  let expected = 0;
  for (let r = 0; r < 10; r++) {
    for (let i = 0; i < 130; i++) {
      for (let j = 0; j < 130; j++) expected += d[r * 130 + i] * g[i * 130 + j] * d[r * 130 + j];
    }
  }
  expect(quadraticTrace(d, g, 10, 130) / expected).toBeCloseTo(1, 11);
});
