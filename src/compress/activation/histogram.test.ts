import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random, UsageError } from "../../core/index.js";
import { ActivationHistogram } from "./histogram.js";

function histogramOf(values: Float32Array): ActivationHistogram {
  const histogram = new ActivationHistogram();
  histogram.add(values);
  return histogram;
}

function normals(count: number, seed: number, shift = 0): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal() + shift);
}

const zeroShare = (values: Float32Array, threshold: number) =>
  values.reduce((zeros, value) => zeros + (Math.abs(value) > threshold ? 0 : 1), 0) / values.length;

/** Inverse of the normal distribution function at 0.5 + p/2: the p-quantile of |x|. */
const normalAbsQuantiles = { 0.25: 0.318639, 0.4: 0.524401, 0.5: 0.67449, 0.6: 0.841621, 0.9: 1.644854 };

describe("ActivationHistogram", () => {
  it("finds the quantiles of a normal distribution with both estimators", () => {
    const histogram = histogramOf(normals(400_000, 1));
    for (const [p, expected] of Object.entries(normalAbsQuantiles)) {
      expect(Math.abs(histogram.absQuantile(Number(p)) / expected - 1)).toBeLessThan(0.01);
      expect(Math.abs(histogram.symmetricQuantile(Number(p)) / expected - 1)).toBeLessThan(0.01);
    }
  });

  it("realises the asked share exactly on skewed values, where the symmetric estimator does not", () => {
    const values = normals(100_000, 2, 0.5);
    const histogram = histogramOf(values);
    expect(zeroShare(values, histogram.absQuantile(0.5))).toBeCloseTo(0.5, 3);
    // F⁻¹(0.75) of N(0.5, 1) is 1.174, below which 70 % of the magnitudes lie.
    expect(histogram.symmetricQuantile(0.5)).toBeCloseTo(1.174, 1);
    expect(zeroShare(values, histogram.symmetricQuantile(0.5))).toBeGreaterThan(0.65);
  });

  it("clamps the symmetric estimator at 0 where most values are negative", () => {
    expect(histogramOf(normals(10_000, 3, -3)).symmetricQuantile(0.5)).toBe(0);
  });

  it("is within 0.2 % of the exact order statistic, and monotone in p", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: Math.fround(-1e30), max: Math.fround(1e30) }), {
          minLength: 1,
          maxLength: 300,
        }),
        fc.double({ min: 0.001, max: 1, noNaN: true }),
        (numbers, p) => {
          const values = Float32Array.from(numbers);
          const histogram = histogramOf(values);
          const magnitudes = values.map(Math.abs).sort();
          const exact = magnitudes[Math.min(values.length - 1, Math.ceil(p * values.length - 1e-9) - 1)];
          const estimate = histogram.absQuantile(p);
          if (exact < 1e-38) expect(estimate).toBeLessThan(2e-38);
          else expect(Math.abs(estimate / exact - 1)).toBeLessThanOrEqual(1 / 512);
          expect(histogram.absQuantile(p / 2)).toBeLessThanOrEqual(estimate);
        },
      ),
    );
  });

  it("tells the sparsity that a threshold realises", () => {
    const values = normals(50_000, 4);
    const histogram = histogramOf(values);
    for (const p of [0, 0.25, 0.4, 0.5, 0.9, 1]) {
      const threshold = histogram.absQuantile(p);
      expect(histogram.sparsityAt(threshold)).toBeCloseTo(p, 5);
      expect(Math.abs(zeroShare(values, threshold) - p)).toBeLessThan(0.001);
    }
    expect(histogram.sparsityAt(Number.MAX_VALUE)).toBe(1);
  });

  it("gives exactly 0 for p = 0 and wherever zeros are already the share", () => {
    expect(histogramOf(normals(1000, 5)).absQuantile(0)).toBe(0);
    expect(histogramOf(normals(1000, 5)).symmetricQuantile(0)).toBe(0);
    const relu = histogramOf(normals(1000, 6).map((x) => Math.max(x, 0)));
    expect(relu.absQuantile(0.4)).toBe(0);
    expect(relu.sparsityAt(0)).toBeCloseTo(0.5, 1);
    expect(relu.absQuantile(0.75)).toBeGreaterThan(0);
    expect(histogramOf(new Float32Array([-0, 0, -0, 1])).symmetricQuantile(0.2)).toBe(0);
  });

  it("does not depend on how the values were split", () => {
    const values = normals(9_999, 7);
    const whole = histogramOf(values);
    const parts = histogramOf(values.subarray(0, 1234));
    // Quantiles in between must not be remembered.
    parts.absQuantile(0.5);
    parts.merge(histogramOf(values.subarray(1234, 5000)));
    expect(parts.sparsityAt(Number.MAX_VALUE)).toBe(1);
    expect(parts.absQuantile(0.5)).toBe(histogramOf(values.subarray(0, 5000)).absQuantile(0.5));
    parts.add(values.subarray(5000));
    expect(parts.count).toBe(whole.count);
    for (const p of [0.1, 0.5, 0.99]) {
      expect(parts.absQuantile(p)).toBe(whole.absQuantile(p));
      expect(parts.symmetricQuantile(p)).toBe(whole.symmetricQuantile(p));
    }
  });

  it("refuses NaN, infinities, empty histograms and shares that are none, and stays as it was", () => {
    const histogram = histogramOf(new Float32Array([1, 2, 3, 4]));
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      expect(() => histogram.add(new Float32Array([5, 5, bad]))).toThrow(/value 2 of 3 is (NaN|-?Infinity)/);
    }
    expect(histogram.count).toBe(4);
    expect(histogram.absQuantile(1)).toBeCloseTo(4, 1);
    histogram.add(new Float32Array([1]));
    expect(histogram.absQuantile(0.4)).toBeCloseTo(1, 2);
    expect(() => histogram.absQuantile(1.5)).toThrow(UsageError);
    expect(() => histogram.absQuantile(Number.NaN)).toThrow(UsageError);
    expect(() => new ActivationHistogram().absQuantile(0.5)).toThrow(UsageError);
  });

  it("keeps the largest floats finite", () => {
    expect(histogramOf(new Float32Array([3.4e38, -3.4e38])).absQuantile(1)).toBeLessThan(Number.POSITIVE_INFINITY);
  });
});
