import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allocationEvaluations, allocations, blockSparsity, nearestRow } from "./allocation.js";
import { projectionCosts } from "./costs.js";

const llama3 = { hiddenSize: 4096, intermediateSize: 14336, queryHeads: 32, kvHeads: 8, headDim: 128 };

describe("projectionCosts", () => {
  it("counts weights relative to hiddenSize² (Llama-3-8B: 1, .25, .25, 1, 3.5, 3.5, 3.5)", () => {
    expect(Object.values(projectionCosts(llama3))).toEqual([1, 0.25, 0.25, 1, 3.5, 3.5, 3.5]);
  });

  it("counts heads that do not fill the hidden size", () => {
    const costs = projectionCosts({ ...llama3, hiddenSize: 1024, queryHeads: 16, kvHeads: 8, headDim: 128 });
    expect(costs.q_proj).toBe(2);
    expect(costs.k_proj).toBe(1);
  });
});

describe("greedy allocation", () => {
  /** A separable error: every projection has its own sensitivity. */
  const damage = (sensitivity: Record<string, number>) => async (projections: Readonly<Record<string, number>>) =>
    Object.entries(projections).reduce((total, [name, p]) => total + sensitivity[name] * p ** 2, 0);

  it("raises the block's sparsity by base / Σcosts a move (Llama-3-8B: .05 / 13 = .0038462)", async () => {
    const costs = projectionCosts(llama3);
    const sensitivity = { q_proj: 1, k_proj: 1, v_proj: 3, o_proj: 2, gate_proj: 9, up_proj: 15, down_proj: 8 };
    let evaluations = 0;
    const rows = await allocations.greedy({
      costs,
      levels: [0.2, 0.1],
      blockError: (projections) => {
        evaluations++;
        return damage(sensitivity)(projections);
      },
    });
    expect(rows).toHaveLength(53);
    rows.forEach((row, move) => {
      expect(row.sparsity).toBeCloseTo((move * 0.05) / 13, 10);
      expect(row.sparsity).toBe(blockSparsity(costs, row.projections));
    });
    expect(rows[0].error).toBe(0);
    expect(rows.at(-1)!.sparsity).toBeGreaterThanOrEqual(0.2);
    expect(evaluations).toBe(52 * 7);
    expect(allocationEvaluations("greedy", { costs, levels: [0.2, 0.1] })).toBe(evaluations);
    const { up_proj, down_proj } = rows.at(-1)!.projections;
    expect(down_proj).toBeGreaterThan(up_proj);
  });

  it("takes the least harmful move, the first of equal ones, and stops at the level", async () => {
    const rows = await allocations.greedy({
      costs: { a: 1, b: 1 },
      levels: [0.5],
      base: 0.25,
      blockError: damage({ a: 1, b: 4 }),
    });
    expect(rows.map((row) => row.projections)).toEqual([
      { a: 0, b: 0 },
      { a: 0.25, b: 0 },
      { a: 0.5, b: 0 },
      { a: 0.5, b: 0.25 },
      { a: 0.75, b: 0.25 },
    ]);
    const tie = await allocations.greedy({ costs: { a: 1, b: 1 }, levels: [0.1], blockError: async () => 1 });
    expect(tie[1].projections).toEqual({ a: 0.05, b: 0 });
  });

  it("never exceeds a share of 1, keeps P the weighted mean, and ends when everything is zero", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({ a: fc.double({ min: 0.1, max: 4, noNaN: true }), b: fc.double({ min: 0.1, max: 4, noNaN: true }) }),
        fc.record({ a: fc.double({ min: 0, max: 9, noNaN: true }), b: fc.double({ min: 0, max: 9, noNaN: true }) }),
        fc.double({ min: 0.1, max: 1, noNaN: true }),
        async (costs, sensitivity, base) => {
          const rows = await allocations.greedy({ costs, levels: [1], base, blockError: damage(sensitivity) });
          let before = -1;
          for (const row of rows) {
            expect(row.sparsity).toBeGreaterThan(before);
            expect(row.sparsity).toBe(blockSparsity(costs, row.projections));
            for (const p of Object.values(row.projections)) expect(p).toBeLessThanOrEqual(1);
            before = row.sparsity;
          }
          for (const p of Object.values(rows.at(-1)!.projections)) expect(p).toBeCloseTo(1, 8);
        },
      ),
    );
  });

  it("is not worse than uniform under a separable convex error", async () => {
    const costs = projectionCosts(llama3);
    const sensitivity = { q_proj: 1, k_proj: 1, v_proj: 3, o_proj: 2, gate_proj: 9, up_proj: 15, down_proj: 8 };
    const rows = await allocations.greedy({
      costs,
      levels: [0.5],
      uniformBaseline: true,
      blockError: damage(sensitivity),
    });
    const last = rows.at(-1)!;
    expect(last.error!).toBeLessThan(last.uniformError!);
  });

  it("stops when aborted and refuses an error that is no number", async () => {
    const controller = new AbortController();
    let evaluations = 0;
    const aborted = allocations.greedy({
      costs: { a: 1 },
      levels: [1],
      signal: controller.signal,
      blockError: async () => {
        if (++evaluations === 3) controller.abort();
        return evaluations;
      },
    });
    await expect(aborted).rejects.toThrow(/abort/i);
    expect(evaluations).toBe(3);
    await expect(
      allocations.greedy({ costs: { a: 1 }, levels: [1], blockError: async () => Number.NaN }),
    ).rejects.toThrow("the block's error is NaN with a at 0.05");
  });
});

describe("uniform allocation", () => {
  it("gives every projection the level and evaluates nothing", async () => {
    const rows = await allocations.uniform({
      costs: { a: 1, b: 3 },
      levels: [0.5, 0.25],
      blockError: () => Promise.reject(new Error("not to be called")),
    });
    expect(rows).toEqual([
      { sparsity: 0.25, projections: { a: 0.25, b: 0.25 } },
      { sparsity: 0.5, projections: { a: 0.5, b: 0.5 } },
    ]);
    expect(allocationEvaluations("uniform", { costs: { a: 1 }, levels: [0.5] })).toBe(0);
  });
});

describe("nearestRow", () => {
  it("finds the nearest sparsity, the lower of equally near ones", () => {
    const rows = [0, 0.25, 0.5, 0.75].map((sparsity) => ({ sparsity, projections: { a: sparsity } }));
    expect(nearestRow(rows, 0.4).sparsity).toBe(0.5);
    expect(nearestRow(rows, 0.375).sparsity).toBe(0.25);
    expect(nearestRow(rows, 0.9).sparsity).toBe(0.75);
  });
});
