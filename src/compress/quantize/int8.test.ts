import { describe, expect, it } from "vitest";
import { statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import type { QuantizeResult } from "../contract.js";
import { absmax, rowwise, vectorwise, zeropoint } from "./int8.js";
import { integerProduct } from "./integerProduct.js";
import { method as llmint8 } from "./llmint8.js";

const layer = syntheticLayer(81, 16, 48, { tokens: 40 });
const statistics = statisticsOf(layer);
const eight = { bits: 8 };

/** f64 x·Wᵀ. */
function product(x: ArrayLike<number>, weight: ArrayLike<number>): Float64Array {
  const tokens = x.length / 48;
  return Float64Array.from({ length: tokens * 16 }, (_, i) => {
    let y = 0;
    for (let c = 0; c < 48; c++) y += x[Math.floor(i / 16) * 48 + c] * weight[(i % 16) * 48 + c];
    return y;
  });
}
const squared = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum;
};
const dense = product(layer.inputs, layer.weight);
const errorOf = (result: QuantizeResult, x = layer.inputs, exact: ArrayLike<number> = dense) =>
  squared(integerProduct(x, result, 48), exact);

describe("integer products", () => {
  it.each([absmax, zeropoint, rowwise, vectorwise])("$id: equals dequantising first, to f32 rounding", (method) => {
    const result = method.quantize(layer, statistics, eight);
    const y = integerProduct(layer.inputs, result, 48);
    // Inputs that already lie on the grid: rounding them again changes nothing but the scale's last bit.
    const step = result.activation!.symmetric ? 1 / 127 : 1 / 255;
    const size = Math.max(...dense.map(Math.abs));
    y.forEach((value, i) => {
      expect(Math.abs(value - dense[i])).toBeLessThan(size * 48 * step);
    });
    expect(squared(y, dense)).toBeLessThan(0.01 * squared(dense, new Float64Array(dense.length)));
  });

  it("zero points: the corrected integer sums are those of the shifted codes", () => {
    const shifted = { ...layer, weight: layer.weight.map((w) => w + 0.3) };
    const inputs = layer.inputs.map((x) => x - 1);
    const result = zeropoint.quantize(shifted, statistics, eight);
    const error = squared(integerProduct(inputs, result, 48), product(inputs, shifted.weight));
    expect(error).toBeLessThan(1e-3 * squared(product(inputs, shifted.weight), new Float64Array(dense.length)));
  });

  it("a grid per row and token is finer than one per matrix", () => {
    const spread = { ...layer, weight: layer.weight.map((w, i) => w * 3 ** (Math.floor(i / 48) % 4)) };
    const inputs = layer.inputs.map((x, i) => x * 3 ** (Math.floor(i / 48) % 4));
    const exact = product(inputs, spread.weight);
    const errors = [absmax, rowwise, vectorwise].map((method) =>
      errorOf(method.quantize(spread, statistics, eight), inputs, exact),
    );
    expect(errors[1]).toBeLessThan(errors[0]);
    expect(errors[2]).toBeLessThan(errors[1]);
  });

  it("zero point has the finer grid for one-sided weights", () => {
    const positive = { ...layer, weight: layer.weight.map(Math.abs) };
    const lost = [absmax, zeropoint].map((m) =>
      squared(m.quantize(positive, statistics, eight).weight, positive.weight),
    );
    expect(lost[1]).toBeLessThan(lost[0] / 2);
  });

  it("refuses weights with several grids a row", () => {
    const result = { ...vectorwise.quantize(layer, statistics, eight), groupSize: 16 };
    expect(() => integerProduct(layer.inputs, result, 48)).toThrow(/one grid per row/);
  });
});

describe("LLM.int8()", () => {
  const spiked = layer.inputs.map((x, i) => (i % 48 === 7 ? x * 60 : x));
  const ofSpiked = statisticsOf({ ...layer, inputs: spiked });
  const exact = product(spiked, layer.weight);

  it("threshold 0 is vector-wise", () => {
    const result = llmint8.quantize(layer, statistics, { threshold: 0 });
    expect(result.outlierColumns).toHaveLength(0);
    expect(integerProduct(layer.inputs, result, 48)).toEqual(
      integerProduct(layer.inputs, vectorwise.quantize(layer, statistics, eight), 48),
    );
  });

  it("a threshold below every channel is the float product", () => {
    const result = llmint8.quantize(layer, statistics, { threshold: 1e-6 });
    expect(result.outlierColumns).toHaveLength(48);
    expect(errorOf(result)).toBeLessThan(1e-9);
  });

  it("with an outlier channel the decomposition loses much less", () => {
    const apart = llmint8.quantize(layer, ofSpiked, { threshold: 6 });
    expect([...apart.outlierColumns!]).toContain(7);
    for (let r = 0; r < 16; r++) expect(apart.codes[r * 48 + 7]).toBe(0);
    const heavy = { ...layer, weight: layer.weight.map((w, i) => (i % 48 === 7 ? 100 * w : w)) };
    expect(llmint8.quantize(heavy, ofSpiked, { threshold: 6 }).scales).toEqual(apart.scales);
    const together = vectorwise.quantize(layer, ofSpiked, eight);
    expect(errorOf(apart, spiked, exact)).toBeLessThan(0.1 * errorOf(together, spiked, exact));
  });

  it("outliers are found in every call, not only those of calibration", () => {
    const calm = llmint8.quantize(layer, statistics, { threshold: 30 });
    expect(calm.outlierColumns).toHaveLength(0);
    const unaware = { ...calm, activation: { ...calm.activation!, outlierThreshold: 0 } };
    expect(errorOf(calm, spiked, exact)).toBeLessThan(0.2 * errorOf(unaware, spiked, exact));
  });
});
