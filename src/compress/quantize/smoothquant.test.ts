import { describe, expect, it } from "vitest";
import { statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { divideChannels, divideRows, multiplyColumns } from "./fold.js";
import { vectorwise } from "./int8.js";
import { integerProduct } from "./integerProduct.js";
import { method } from "./smoothquant.js";

const layer = syntheticLayer(91, 24, 40, { tokens: 60, outliers: true });
const other = syntheticLayer(92, 12, 40);
const statistics = statisticsOf(layer);
const absMax = (values: Float32Array, c: number) => Math.max(...values.filter((_, i) => i % 40 === c).map(Math.abs));
const product = (x: Float32Array, weight: Float32Array, rows: number) =>
  Float64Array.from({ length: (x.length / 40) * rows }, (_, i) => {
    let y = 0;
    for (let c = 0; c < 40; c++) y += x[Math.floor(i / rows) * 40 + c] * weight[(i % rows) * 40 + c];
    return y;
  });

describe("smoothquant", () => {
  it.each([0, 0.3, 0.5, 0.85, 1])("α = %f: outputs of all consumers are the same to 1e-5", (alpha) => {
    const factors = method.factors([layer, other], statistics, { alpha });
    // The norm's weight carries 1/s, so the inputs that it makes do.
    const smoothed = layer.inputs.map((x, i) =>
      Math.fround(x * divideChannels(new Float32Array(40).fill(1), factors)[i % 40]),
    );
    for (const { weight, rows } of [layer, other]) {
      const exact = product(layer.inputs, weight, rows);
      const size = Math.max(...exact.map(Math.abs));
      product(smoothed, multiplyColumns(weight, factors), rows).forEach((y, i) => {
        expect(Math.abs(y - exact[i])).toBeLessThan(1e-5 * size);
      });
    }
  });

  it("at ½ inputs and weights end with equal maxima; at 0 the weights, at 1 the inputs end at 1", () => {
    const maxima = (alpha: number, c: number) => {
      const factors = method.factors([layer], statistics, { alpha });
      return [absMax(layer.inputs, c) / factors[c], absMax(layer.weight, c) * factors[c]];
    };
    for (const c of [0, 13, 39]) {
      const [x, w] = maxima(0.5, c);
      expect(x / w).toBeCloseTo(1, 4);
      expect(maxima(0, c)[1]).toBeCloseTo(1, 4);
      expect(maxima(1, c)[0]).toBeCloseTo(1, 4);
    }
  });

  it("the weights of all consumers count", () => {
    const factors = method.factors([layer, other], statistics, { alpha: 0 });
    const c = 5;
    expect(factors[c]).toBeCloseTo(1 / Math.max(absMax(layer.weight, c), absMax(other.weight, c)), 4);
  });

  it("int8 products lose less on inputs with outlier channels", () => {
    const exact = product(layer.inputs, layer.weight, 24);
    const error = (x: Float32Array, weight: Float32Array) => {
      const y = integerProduct(x, vectorwise.quantize({ ...layer, weight }, statistics, { bits: 8 }), 40);
      return y.reduce((sum, v, i) => sum + (v - exact[i]) ** 2, 0);
    };
    const factors = method.factors([layer], statistics, { alpha: 0.5 });
    const smoothed = layer.inputs.map((x, i) => x / factors[i % 40]);
    expect(error(smoothed, multiplyColumns(layer.weight, factors))).toBeLessThan(
      0.5 * error(layer.inputs, layer.weight),
    );
  });

  it("dead channels and zero columns give finite factors", () => {
    const dead = statisticsOf({ ...layer, inputs: layer.inputs.map((x, i) => (i % 40 === 3 ? 0 : x)) });
    const weight = layer.weight.map((w, i) => (i % 40 === 4 ? 0 : w));
    const factors = method.factors([{ ...layer, weight }], dead, { alpha: 0.5 });
    expect(factors.every((s) => s > 0 && Number.isFinite(s))).toBe(true);
  });

  it("rows of a producing layer divide like channels", () => {
    const factors = Float32Array.of(2, 4);
    expect([...divideRows(Float32Array.of(2, 4, 8, 16), 2, factors)]).toEqual([1, 2, 2, 4]);
  });
});
