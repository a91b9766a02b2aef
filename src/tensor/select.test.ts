import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { topS } from "./select.js";

/** Kept magnitudes by a full sort. */
const sorted = (parts: readonly Float32Array[], count: number) =>
  parts
    .flatMap((part) => Array.from(part, Math.abs))
    .sort((a, b) => b - a)
    .slice(0, count);

function kept(parts: readonly Float32Array[], masks: readonly Uint8Array[]) {
  return parts
    .flatMap((part, p) => Array.from(part).filter((_, i) => masks[p][i] === 1))
    .map(Math.abs)
    .sort((a, b) => b - a);
}

describe("topS", () => {
  test("keeps what a full sort keeps, exactly as many, over any parts with any ties", () => {
    const value = fc.oneof(fc.float({ noNaN: true }), fc.constantFrom(0, -0, 1, -1, 1e-45, Number.POSITIVE_INFINITY));
    fc.assert(
      fc.property(
        fc.array(fc.float32Array({ noNaN: true, maxLength: 40 }), { minLength: 1, maxLength: 4 }),
        fc.nat(),
        fc.array(value, { maxLength: 20 }),
        (arrays, pick, more) => {
          const parts = [...arrays, Float32Array.from(more)];
          const total = parts.reduce((sum, part) => sum + part.length, 0);
          const count = pick % (total + 1);
          expect(kept(parts, topS(parts, count))).toEqual(sorted(parts, count));
        },
      ),
    );
  });

  test.each([0, 1, 500, 999, 1000])("keeps %i of 1000 equal entries, the first ones", (count) => {
    const [first, second] = topS([new Float32Array(600).fill(-2), new Float32Array(400).fill(2)], count);
    const mask = [...first, ...second];
    expect(mask.lastIndexOf(1)).toBe(count - 1);
    expect(mask.filter((keep) => keep === 1)).toHaveLength(count);
  });

  test("refuses an entry that is not a number and a count that is too large", () => {
    expect(() => topS([Float32Array.of(1, Number.NaN)], 1)).toThrow(/not a number/);
    expect(() => topS([Float32Array.of(1)], 2)).toThrow(/cannot be kept/);
  });
});
