import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bf16FromF32, f32FromBf16 } from "../../tensor/index.js";
import { GridMatrix, type GridOptions } from "./grid.js";

const base: GridOptions = { bits: 4, groupSize: 8, scheme: "symmetric", scaleType: "f32", searchRange: false };
const schemes = ["symmetric", "fullRange", "asymmetric"] as const;
// Multiples of 2⁻²⁰: among subnormal numbers a scale itself is rounded by more than the bounds below allow.
const weightArbitrary = fc.integer({ min: -(2 ** 23), max: 2 ** 23 }).map((n) => n / 2 ** 20);
const rowArbitrary = fc.array(weightArbitrary, { minLength: 20, maxLength: 20 });

function rounded(values: readonly number[], change: Partial<GridOptions> = {}) {
  const matrix = new GridMatrix(1, values.length, { ...base, ...change });
  matrix.fitAll(Float32Array.from(values));
  matrix.roundAll(Float32Array.from(values));
  return matrix.result();
}

describe.each(schemes)("grid %s", (scheme) => {
  it("rounds to within half a step, codes in range, zero exact, idempotent", () => {
    fc.assert(
      fc.property(rowArbitrary, fc.integer({ min: 2, max: 8 }), (values, bits) => {
        const { weight, codes, scales, zeros } = rounded(values, { scheme, bits });
        const [low, high] = scheme === "symmetric" ? [1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
        weight.forEach((w, i) => {
          const group = Math.floor(i / 8);
          const scale = scales[group];
          expect(codes[i]).toBeGreaterThanOrEqual(low);
          expect(codes[i]).toBeLessThanOrEqual(high);
          expect(w).toBe(Math.fround(scale * (codes[i] - zeros[group])));
          // Both ends of an asymmetric or full range may lie half a step beyond the last code.
          const bound = scheme === "symmetric" ? 0.5 : 1;
          expect(Math.abs(w - Math.fround(values[i]))).toBeLessThanOrEqual(bound * scale * (1 + 1e-5));
          if (values[i] === 0) expect(w).toBe(0);
        });
      }),
    );
  });

  it("scales with the values", () => {
    fc.assert(
      fc.property(rowArbitrary, (values) => {
        const scaled = rounded(
          values.map((v) => v * 4),
          { scheme },
        );
        expect(scaled.codes).toEqual(rounded(values, { scheme }).codes);
      }),
    );
  });
});

describe("grids", () => {
  it("known codes", () => {
    const values = [0, 1, -7, 3.5, 2.5, -2.5, 0.4, 7];
    expect([...rounded(values).codes]).toEqual([0, 1, -7, 4, 2, -2, 0, 7]);
    const affine = rounded([0, 15, 7.4, 3], { scheme: "asymmetric" });
    expect([...affine.codes.subarray(0, 4)]).toEqual([0, 15, 7, 3]);
    const full = rounded([-7.5, 7.5, 0, 1], { scheme: "fullRange" });
    expect([...full.codes.subarray(0, 4)]).toEqual([0, 15, 8, 9]);
  });

  it("the last group of a row may be short; group 0 is the whole row", () => {
    const values = Array.from({ length: 20 }, (_, i) => i - 9);
    expect(rounded(values).scales).toHaveLength(3);
    expect(rounded(values, { groupSize: 0 })).toMatchObject({ groupSize: 20, scales: { length: 1 } });
  });

  it("bf16 scales are bf16 numbers not below the exact ones, so that no code clips", () => {
    fc.assert(
      fc.property(rowArbitrary, (values) => {
        const exact = rounded(values).scales;
        rounded(values, { scaleType: "bf16" }).scales.forEach((scale, g) => {
          expect(f32FromBf16(bf16FromF32(scale))).toBe(scale);
          expect(scale).toBeGreaterThanOrEqual(exact[g]);
        });
      }),
    );
  });

  it("the search never has more of the error it minimises, and finds better ranges for outliers", () => {
    const error = (values: readonly number[], searchRange: boolean) =>
      rounded(values, { searchRange, groupSize: 0, scheme: "asymmetric" }).weight.reduce(
        (sum, w, i) => sum + Math.abs(w - Math.fround(values[i])) ** 2.4,
        0,
      );
    fc.assert(
      fc.property(rowArbitrary, (values) => {
        expect(error(values, true)).toBeLessThanOrEqual(error(values, false) * (1 + 1e-5) + 1e-12);
      }),
    );
    const spiky = Array.from({ length: 200 }, (_, i) => (i === 0 ? 3 : Math.sin(i * 12.9898) * 0.5));
    expect(error(spiky, true)).toBeLessThan(0.95 * error(spiky, false));
  });

  it("refuses weights that are not finite", () => {
    expect(() => rounded([1, Number.NaN])).toThrow(/weight 1 is NaN/);
  });
});
