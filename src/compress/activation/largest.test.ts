import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keepLargest, sparsifyByRatio } from "./largest.js";

const floats = fc
  .array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 200 })
  .map((numbers) => Float32Array.from(numbers));

/** The same by a stable sort. */
function keepLargestBySorting(values: Float32Array, keep: number): Float32Array {
  const order = Array.from(values.keys()).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]) || a - b);
  const out = new Float32Array(values.length);
  for (const index of order.slice(0, keep)) out[index] = values[index];
  return out;
}

describe("keepLargest", () => {
  it("agrees with a stable sort, ties by the lower index", () => {
    fc.assert(
      fc.property(floats, fc.integer({ min: 0, max: 220 }), (values, keep) => {
        expect(keepLargest(values, keep)).toEqual(keepLargestBySorting(values, keep));
      }),
    );
    const tied = Float32Array.from({ length: 40 }, (_, i) => [1, -1, 2, 0][i % 4]);
    for (let keep = 0; keep <= 40; keep++) expect(keepLargest(tied, keep)).toEqual(keepLargestBySorting(tied, keep));
  });
});

describe("sparsifyByRatio", () => {
  it("keeps ⌊n·(1 − s)⌋ of the tensor", () => {
    const values = new Float32Array([3, -1, 2, -4]);
    const at = (sparsity: number) => Array.from(sparsifyByRatio(values, 2, { sparsity, scope: "tensor" }));
    expect(at(0.5)).toEqual([3, 0, 0, -4]);
    expect(at(0.9)).toEqual([0, 0, 0, 0]);
    expect(at(0)).toEqual([3, -1, 2, -4]);
  });

  it("selects row by row in token scope, so one row never changes another", () => {
    const values = new Float32Array([3, -1, 20, -40]);
    expect(Array.from(sparsifyByRatio(values, 2, { sparsity: 0.5, scope: "token" }))).toEqual([3, 0, 0, -40]);
    expect(Array.from(sparsifyByRatio(values, 2, { sparsity: 0.5, scope: "tensor" }))).toEqual([0, 0, 20, -40]);
  });
});
