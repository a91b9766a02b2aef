import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countZeros } from "../../test/support/layers.js";
import { zerosFor } from "./pattern.js";
import { rank, selectMask } from "./select.js";

const scoresArbitrary = (length: number) =>
  fc.array(fc.oneof(fc.float({ min: 0, max: 4, noNaN: true }), fc.constantFrom(0, 1, 2)), {
    minLength: length,
    maxLength: length,
  });
const asScores = (values: readonly number[]) => Float32Array.from(values, Math.abs);

/** The definition: a stable ascending sort, the first ones go. */
function maskBySorting(scores: Float32Array, zeros: number): Uint8Array {
  const order = Array.from(scores.keys()).sort((a, b) => scores[a] - scores[b] || a - b);
  const keep = new Uint8Array(scores.length).fill(1);
  for (const i of order.slice(0, zeros)) keep[i] = 0;
  return keep;
}

describe("selection by rank", () => {
  it("equals a stable sort, ties included", () => {
    fc.assert(
      fc.property(scoresArbitrary(60), fc.double({ min: 0, max: 0.999, noNaN: true }), (values, sparsity) => {
        const scores = asScores(values);
        const mask = selectMask(scores, 6, 10, { type: "unstructured", sparsity }, "tensor");
        expect([...mask]).toEqual([...maskBySorting(scores, zerosFor(60, sparsity))]);
      }),
    );
  });

  it("ranks over the whole range of f32", () => {
    const scores = Float32Array.of(0, 2 ** -149, 1e-30, 1, 1.0000001, 3e38);
    for (let i = 0; i < scores.length; i++) expect(rank(scores, 0, 6, i)).toEqual({ value: scores[i], below: i });
  });

  it("counts exactly per row, and by threshold when asked", () => {
    const scores = Float32Array.from({ length: 40 }, (_, i) => ((i * 7) % 40) + 1);
    const byRow = selectMask(scores, 4, 10, { type: "unstructured", sparsity: 0.29 }, "row");
    for (let r = 0; r < 4; r++) expect(countZeros(byRow, r * 10, r * 10 + 10)).toBe(2);
    const threshold = selectMask(scores, 4, 10, { type: "unstructured", sparsity: 0.5 }, "tensor", "threshold");
    expect(countZeros(threshold)).toBe(21);
    const tied = Float32Array.of(1, 2, 2, 2, 3, 4);
    const zeros = (counting: "exact" | "threshold" | "below") => [
      ...selectMask(tied, 1, 6, { type: "unstructured", sparsity: 0.5 }, "tensor", counting),
    ];
    expect(zeros("exact")).toEqual([0, 0, 0, 1, 1, 1]);
    expect(zeros("threshold")).toEqual([0, 0, 0, 0, 1, 1]);
    expect(zeros("below")).toEqual([0, 1, 1, 1, 1, 1]);
    expect(zerosFor(100, 0.29)).toBe(29);
  });

  it("refuses scores that are not finite, not positive, or shapes that do not divide", () => {
    const unstructured = { type: "unstructured", sparsity: 0.5 } as const;
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
      expect(() => selectMask(Float32Array.of(1, bad), 1, 2, unstructured, "tensor")).toThrow(/must be finite/);
    }
    const six = new Float32Array(6);
    expect(() => selectMask(six, 1, 6, { type: "nm", keep: 2, group: 4 }, "row")).toThrow(/not a multiple of 4/);
    expect(() => selectMask(six, 3, 2, { type: "block", rows: 2, cols: 2, sparsity: 0.5 }, "tensor")).toThrow(
      /3 rows are not a multiple of 2/,
    );
    expect(() => selectMask(six, 3, 2, unstructured, "global")).toThrow(/global/);
    expect(() => selectMask(six, 3, 2, { type: "heads", sparsity: 0.5 }, "tensor")).toThrow(/group of matrices/);
  });
});

describe("keep:group", () => {
  it.each(["row", "column"] as const)("keeps exactly the largest of every group along a %s", (along) => {
    fc.assert(
      fc.property(scoresArbitrary(64), fc.integer({ min: 1, max: 7 }), (values, keep) => {
        const scores = asScores(values);
        const mask = selectMask(scores, 8, 8, { type: "nm", keep, group: 8, along }, "row");
        for (let g = 0; g < 8; g++) {
          const at = Array.from({ length: 8 }, (_, i) => (along === "row" ? g * 8 + i : i * 8 + g));
          const expected = maskBySorting(
            Float32Array.from(at, (i) => scores[i]),
            8 - keep,
          );
          expect(at.map((i) => mask[i])).toEqual([...expected]);
        }
      }),
    );
  });
});

describe("blocks, rows and columns", () => {
  const scores = Float32Array.from({ length: 64 }, (_, i) => ((i * 37) % 64) + 1);

  it("are kept or dropped whole, in exact number, by the sum of squares", () => {
    const mask = selectMask(scores, 8, 8, { type: "block", rows: 2, cols: 4, sparsity: 0.5 }, "tensor");
    const kept: number[] = [];
    const dropped: number[] = [];
    for (let br = 0; br < 4; br++) {
      for (let bc = 0; bc < 2; bc++) {
        const at = Array.from({ length: 8 }, (_, i) => (br * 2 + (i >> 2)) * 8 + bc * 4 + (i & 3));
        expect(new Set(at.map((i) => mask[i])).size).toBe(1);
        (mask[at[0]] === 1 ? kept : dropped).push(at.reduce((sum, i) => sum + scores[i] ** 2, 0));
      }
    }
    expect(dropped).toHaveLength(4);
    expect(Math.max(...dropped)).toBeLessThanOrEqual(Math.min(...kept));
  });

  it("with scope row every row of blocks loses as many", () => {
    const mask = selectMask(scores, 8, 8, { type: "block", rows: 2, cols: 2, sparsity: 0.25 }, "row");
    for (let br = 0; br < 4; br++) expect(countZeros(mask, br * 16, br * 16 + 16)).toBe(4);
  });

  it.each(["rows", "columns"] as const)("%s go whole", (type) => {
    const mask = selectMask(scores, 8, 8, { type, sparsity: 0.25 }, "tensor");
    const lines = Array.from({ length: 8 }, (_, line) =>
      Array.from({ length: 8 }, (_, i) => mask[type === "rows" ? line * 8 + i : i * 8 + line]),
    );
    expect(lines.filter((l) => l.every((v) => v === 0))).toHaveLength(2);
    expect(lines.filter((l) => l.every((v) => v === 1))).toHaveLength(6);
  });
});
