import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Pattern, selectMask } from "../../compress/index.js";
import type { FloatArray, ParameterInfo } from "../values.js";
import { joinUnits, unitNorms, unitSizes } from "./groups.js";
import { fullMasks } from "./masks.js";
import { magnitudeMasks, structureOption, unitsOf } from "./patterns.js";

const [rows, cols] = [8, 12];
const matrix = (name: string, shared?: ParameterInfo["shared"]): ParameterInfo => ({
  name,
  shape: [rows, cols],
  layer: "0",
  role: "inner",
  shared,
});

/** Different magnitudes in random order, so that no choice depends on ties. */
const distinct = fc
  .shuffledSubarray(
    Array.from({ length: rows * cols }, (_, i) => i + 1),
    { minLength: rows * cols },
  )
  .map((order) => Float32Array.from(order, (m) => (m % 3 === 0 ? -m : m) / 7));

const perMatrix = fc.oneof<fc.Arbitrary<Pattern>[]>(
  fc.record({
    type: fc.constant("unstructured"),
    sparsity: fc.double({ min: 0, max: 0.99, noNaN: true }),
    scope: fc.constantFrom("tensor", "row"),
  }),
  fc.constantFrom<Pattern>(
    { type: "nm", keep: 2, group: 4 },
    { type: "nm", keep: 1, group: 3 },
    { type: "nm", keep: 3, group: 8, along: "column" },
    { type: "nm", keep: 1, group: 4, along: "column" },
  ),
  fc.record({
    type: fc.constant("block"),
    rows: fc.constantFrom(1, 2, 4, 8),
    cols: fc.constantFrom(1, 3, 4, 6),
    sparsity: fc.double({ min: 0, max: 0.99, noNaN: true }),
    scope: fc.constantFrom("tensor", "row"),
  }),
  fc.record({ type: fc.constantFrom("rows", "columns"), sparsity: fc.double({ min: 0, max: 0.99, noNaN: true }) }),
);

test("every pattern of one matrix gives the mask that one-shot pruning gives", () => {
  fc.assert(
    fc.property(distinct, perMatrix, (weight, pattern) => {
      const weights = new Map([["w", weight]]);
      const masks = fullMasks([matrix("w")], weights);
      magnitudeMasks([matrix("w")], pattern)(weights, masks);
      const scope = "scope" in pattern && pattern.scope === "row" ? "row" : "tensor";
      expect(masks.get("w")).toEqual(selectMask(weight.map(Math.abs), rows, cols, pattern, scope));
    }),
  );
});

test("a global scope takes the largest of all matrices together", () => {
  fc.assert(
    fc.property(distinct, distinct, fc.double({ min: 0, max: 0.99, noNaN: true }), (a, b, sparsity) => {
      const weights = new Map<string, FloatArray>([
        ["a", a],
        ["b", b.map((w) => w * 0.5)],
      ]);
      const infos = [matrix("a"), matrix("b")];
      const masks = fullMasks(infos, weights);
      magnitudeMasks(infos, { type: "unstructured", sparsity, scope: "global" })(weights, masks);
      const all = infos.flatMap(({ name }) =>
        Array.from(weights.get(name)!, (w, i) => ({ size: Math.abs(w), kept: masks.get(name)![i] })),
      );
      const kept = all.filter((entry) => entry.kept === 1).map(({ size }) => size);
      const dropped = all.filter((entry) => entry.kept === 0).map(({ size }) => size);
      expect(dropped).toHaveLength(Math.floor(2 * rows * cols * sparsity + 1e-6));
      expect(Math.min(...kept)).toBeGreaterThanOrEqual(Math.max(0, ...dropped));
    }),
  );
});

describe("units of several matrices", () => {
  // Neurons along the rows of up and the columns of down; heads of two rows.
  const up: ParameterInfo = {
    name: "up",
    shape: [6, 2],
    layer: "0",
    role: "inner",
    shared: [
      { type: "neurons", group: "0", axis: "rows", count: 6 },
      { type: "heads", group: "0", axis: "rows", count: 3 },
    ],
  };
  const down: ParameterInfo = {
    name: "down",
    shape: [2, 6],
    layer: "0",
    role: "inner",
    shared: [{ type: "neurons", group: "0", axis: "columns", count: 6 }],
  };
  const weights = new Map<string, FloatArray>([
    ["up", Float32Array.of(3, 0, 0, 1, 0, 0, 5, 0, 0, 2, 1, 0)],
    ["down", Float32Array.of(4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7)],
  ]);

  test("their norm counts rows here and columns there, and they go as a whole", () => {
    const [neurons] = unitsOf([up, down], { type: "neurons", sparsity: 0.5 });
    expect([...unitNorms(neurons, weights)]).toEqual([5, 1, 1, 5, 2, Math.fround(Math.sqrt(50))]);
    expect([...unitSizes(neurons)]).toEqual([4, 4, 4, 4, 4, 4]);
    const masks = fullMasks([up, down], weights);
    magnitudeMasks([up, down], { type: "neurons", sparsity: 0.5 })(weights, masks);
    expect([...masks.get("up")!]).toEqual([1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]);
    expect([...masks.get("down")!]).toEqual([1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1]);
  });

  test("heads leave matrices without heads alone", () => {
    const masks = fullMasks([up, down], weights);
    magnitudeMasks([up, down], { type: "heads", sparsity: 0.4 })(weights, masks);
    expect([...masks.get("up")!]).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]);
    expect([...masks.get("down")!]).toEqual(Array(12).fill(1));
  });

  test("a model without them is told so", () => {
    expect(() => unitsOf([matrix("w")], { type: "heads", sparsity: 0.5 })).toThrow(/no heads/);
  });
});

test("joined units keep the groups of N:M, and nothing else", () => {
  const infos = [matrix("a"), matrix("b")];
  const joined = (pattern: Pattern) => joinUnits(unitsOf(infos, pattern));
  expect(joined({ type: "nm", keep: 2, group: 4 })).toMatchObject({ count: 192, pool: 4 });
  expect(joined({ type: "unstructured", sparsity: 0 })).toMatchObject({ count: 192, pool: 192 });
  expect(joined({ type: "rows", sparsity: 0 })).toMatchObject({ count: 16, pool: 16 });
});

test("shapes that a pattern does not divide are named, all at once", () => {
  const infos = ["a", "b", "c", "d", "e"].map((name) => matrix(name));
  expect(() => unitsOf(infos, { type: "block", rows: 3, cols: 5, sparsity: 0.5 })).toThrow(
    /^a: 8 rows are not a multiple of 3.*; a: 12 columns.*; b: .*; and 7 more$/,
  );
});

test.each([
  ["unstructured", { type: "unstructured", sparsity: 0 }],
  ["block:4x2", { type: "block", rows: 4, cols: 2, sparsity: 0 }],
  ["2:4", { type: "nm", keep: 2, group: 4 }],
  ["neurons", { type: "neurons", sparsity: 0 }],
])("structure %s", (text, pattern) => {
  expect(structureOption.parse(text)).toEqual(pattern);
});

test.each(["diagonal", "block:0x4", "", "4:4"])("structure %s is refused with what is expected", (text) => {
  expect(structureOption.safeParse(text).error?.issues[0].message).toMatch(/expected unstructured, block:ROWSxCOLS/);
});
