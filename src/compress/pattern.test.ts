import { describe, expect, it } from "vitest";
import { parsePattern, patternName, patternSchema, sparsityOf } from "./pattern.js";

describe("patterns in words", () => {
  it.each([
    ["2:4", undefined, { type: "nm", keep: 2, group: 4 }, "2:4", 0.5],
    ["1:4", undefined, { type: "nm", keep: 1, group: 4 }, "1:4", 0.75],
    ["unstructured", 0.6, { type: "unstructured", sparsity: 0.6 }, "60%", 0.6],
    ["block:16x8", 0.5, { type: "block", rows: 16, cols: 8, sparsity: 0.5 }, "block 16×8 50%", 0.5],
    ["heads", 0.25, { type: "heads", sparsity: 0.25 }, "heads 25%", 0.25],
  ])("%s with sparsity %s", (text, share, pattern, name, sparsity) => {
    const parsed = parsePattern(text, share);
    expect(parsed).toEqual(pattern);
    expect(patternName(parsed)).toBe(name);
    expect(sparsityOf(parsed)).toBeCloseTo(sparsity, 12);
  });

  it.each([
    ["4:4", undefined],
    ["0:4", undefined],
    ["9999:2", undefined],
    ["block:0x4", 0.5],
    ["block:4x4", undefined],
    ["unstructured", 1],
    ["unstructured", Number.NaN],
    ["diagonal", 0.5],
    ["", undefined],
  ])("refuses %s with sparsity %s", (text, share) => {
    expect(() => parsePattern(text, share)).toThrow(/is no pattern; expected/);
  });

  it("recipes may write a number, keep:group or an object, and nothing unknown", () => {
    expect(patternSchema.parse(0.5)).toEqual({ type: "unstructured", sparsity: 0.5 });
    expect(patternSchema.parse("4:8")).toEqual({ type: "nm", keep: 4, group: 8 });
    expect(patternSchema.parse({ type: "rows", sparsity: 0.1 })).toEqual({ type: "rows", sparsity: 0.1 });
    expect(patternSchema.safeParse({ type: "rows", sparsity: 0.1, extra: 1 }).success).toBe(false);
    expect(patternSchema.safeParse(null).success).toBe(false);
  });
});
