import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { jit, numpy as np } from "@jax-js/jax";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { contextLeft, shareLeft } from "../../src/train/engine/interactions.js";
import type { Traced } from "../../src/train/engine/ops.js";
import { alphaSigmoid, alphaSigmoidTable } from "../../src/train/models/alphaSigmoid.js";
import { contextLeftName, contextWeightName, sigmoidName } from "../../src/train/models/contextNames.js";
import { alphaAt, contextControl, contextPruningSettings } from "../../src/train/models/contextPruning.js";
import { joinControls } from "../../src/train/models/joinControls.js";

beforeAll(() => startEngine("cpu"));

describe("σ_α", () => {
  test.each([
    [1, 0.5, 1 / (1 + Math.exp(-0.5))],
    [1.5, 0.5, 0.673993],
    [1.5, 1, 0.830719],
    [2, 0.5, 0.75],
    [4, 0.1, 0.690746],
    [1.5, 2, 1],
    [4, 1 / 3, 1],
    [4, 0.34, 1],
  ])("α %d at %d is %d, and 1 less that at −s", (alpha, s, expected) => {
    expect(alphaSigmoid(alpha, s)).toBeCloseTo(expected, 6);
    expect(alphaSigmoid(alpha, -s)).toBeCloseTo(1 - expected, 6);
  });

  test.each([1, 1.01, 1.5, 2, 3, 8])(
    "α %d from its table is itself, and its slope what the definition gives",
    (alpha) => {
      const { values, perUnit } = alphaSigmoidTable(alpha, 2049);
      for (let i = 1; i < 2048; i += 97) {
        const s = (i + 0.5) / perUnit;
        expect((values[i] + values[i + 1]) / 2).toBeCloseTo(alphaSigmoid(alpha, s), 5);
        const p = alphaSigmoid(alpha, s);
        if (p > 0.9999) continue;
        // dp/ds = 1 / (p^(α−2) + (1 − p)^(α−2))
        expect((values[i + 1] - values[i]) * perUnit).toBeCloseTo(1 / (p ** (alpha - 2) + (1 - p) ** (alpha - 2)), 2);
      }
      expect(values[2048]).toBe(1);
    },
  );
});

describe("what is left of a context", () => {
  const [batch, positions, rank] = [2, 11, 4];
  const random = new Random(7);
  const normals = () => Float64Array.from({ length: batch * positions * rank }, () => 1.2 * random.normal());
  const [q, k] = [normals(), normals()];
  const bias = 0.9;

  async function traced(alpha: number | undefined) {
    const array = (values: Float64Array, shape: number[]) => np.array(values as never, { shape });
    const of = jit((q: Traced, k: Traced, bias: Traced, values: Traced, perUnit: Traced) => {
      const left = contextLeft(q, k, bias, alpha === undefined ? undefined : { values, perUnit });
      return [left, shareLeft(left)];
    });
    const table = alphaSigmoidTable(alpha ?? 1, 2049);
    const shape = [batch, positions, rank];
    const [left, share] = of(
      array(q, shape),
      array(k, shape),
      array(Float64Array.of(bias), [1]),
      array(Float64Array.from(table.values), [2049]),
      array(Float64Array.of(table.perUnit), []),
    ) as Traced[];
    return { left: await left.data(), share: (await share.data())[0] };
  }

  /** The definition, one product at a time. */
  function defined(kept: (s: number) => number) {
    const left = new Float64Array(batch * positions * positions).fill(1);
    let sum = 0;
    for (let b = 0; b < batch; b++) {
      const row = (of: Float64Array, n: number) =>
        of.subarray((b * positions + n) * rank, (b * positions + n + 1) * rank);
      for (let i = 0; i < positions; i++) {
        for (let j = 0; j < i; j++) {
          let product = 1;
          for (let n = j + 1; n <= i; n++) {
            const dot = row(q, n).reduce((total, value, c) => total + value * row(k, j)[c], 0);
            product *= kept(dot / Math.sqrt(rank) + bias);
          }
          left[(b * positions + i) * positions + j] = product;
          sum += product;
        }
      }
    }
    return { left, share: sum / ((batch * positions * (positions - 1)) / 2) };
  }

  test.each([1, 1.5, 2, 8])("α %d: products of σ_α over all positions in between", async (alpha) => {
    const { left, share } = await traced(alpha);
    const expected = defined((s) => alphaSigmoid(alpha, s));
    for (const [i, value] of left.entries()) expect(value).toBeCloseTo(expected.left[i], 4);
    expect(share).toBeCloseTo(expected.share, 4);
  });

  test("without a table: 1 until a position finds it no longer needed, and then 0", async () => {
    const { left, share } = await traced(undefined);
    const expected = defined((s) => (s > 0 ? 1 : 0));
    expect([...left]).toEqual([...expected.left]);
    expect(share).toBeCloseTo(expected.share, 7);
    expect(share).toBeGreaterThan(0.2);
    expect(share).toBeLessThan(0.9);
    // Never back again.
    for (let i = 1; i < positions; i++)
      for (let j = 0; j < i; j++) expect(left[i * positions + j]).toBeLessThanOrEqual(left[(i - 1) * positions + j]);
  });
});

describe("how it is steered", () => {
  const settings = contextPruningSettings({ from: 1, to: 8, until: 0.5, weight: 0.25 });

  test("α rises along half a cosine and stays", () => {
    expect(alphaAt(settings, 0, 100)).toBe(1);
    expect(alphaAt(settings, 25, 100)).toBeCloseTo(4.5, 12);
    expect(alphaAt(settings, 50, 100)).toBe(8);
    expect(alphaAt(settings, 99, 100)).toBe(8);
  });

  test("the state of a control is its step; what is measured sees what the runtime keeps", () => {
    const control = contextControl(settings, 100);
    const first = control.arrays()[sigmoidName].values[100];
    for (let step = 0; step < 30; step++) control.observe(new Map([[contextLeftName, Float32Array.of(0.5)]]));
    expect(control.state).toEqual({ step: 30, left: 0.5 });
    expect(control.arrays()[sigmoidName].values[100]).not.toBe(first);
    expect(control.arrays()[contextWeightName].values[0]).toBe(0.25);
    expect(control.evaluationArrays!()).toEqual({});
    const other = { state: {}, arrays: () => ({ more: { shape: [], values: Float32Array.of(3) } }), observe: () => {} };
    const both = joinControls(undefined, control, other)!;
    expect(Object.keys(both.arrays())).toEqual([...Object.keys(control.arrays()), "more"]);
    expect(Object.keys(both.evaluationArrays!())).toEqual(["more"]);
    expect(joinControls(undefined, other)).toBe(other);
  });

  test.each([
    [{ rank: 6 }, "rank"],
    [{ weight: -1 }, "weight"],
    [{ until: 2 }, "until"],
    [{ beta: 2 }, "beta"],
  ])("%o is refused by name", (options, name) => {
    expect(() => contextPruningSettings(options)).toThrow(name);
  });
});
