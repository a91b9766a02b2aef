import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allocationEvaluations, allocations, blockSparsity, nearestRow } from "./allocation.js";

/** Weights of the maps of Llama-3-8B, relative to hiddenSize². */
const llama3 = { q_proj: 1, k_proj: 0.25, v_proj: 0.25, o_proj: 1, gate_proj: 3.5, up_proj: 3.5, down_proj: 3.5 };

describe("greedy allocation", () => {
  /** A separable error: every map has its own sensitivity. */
  const damage = (sensitivity: Record<string, number>) => async (shares: Readonly<Record<string, number>>) =>
    Object.entries(shares).reduce((total, [name, p]) => total + sensitivity[name] * p ** 2, 0);

  it("raises the block's sparsity by base / Σcosts a move (Llama-3-8B: .05 / 13 = .0038462)", async () => {
    const costs = llama3;
    const sensitivity = { q_proj: 1, k_proj: 1, v_proj: 3, o_proj: 2, gate_proj: 9, up_proj: 15, down_proj: 8 };
    let evaluations = 0;
    const rows = await allocations.greedy({
      costs,
      base: 0.05,
      levels: [0.2, 0.1],
      blockError: (shares) => {
        evaluations++;
        return damage(sensitivity)(shares);
      },
    });
    expect(rows).toHaveLength(53);
    rows.forEach((row, move) => {
      expect(row.sparsity).toBeCloseTo((move * 0.05) / 13, 10);
      expect(row.sparsity).toBe(blockSparsity(costs, row.shares));
    });
    expect(rows[0].error).toBe(0);
    expect(rows.at(-1)!.sparsity).toBeGreaterThanOrEqual(0.2);
    expect(evaluations).toBe(52 * 7);
    expect(allocationEvaluations("greedy", { costs, levels: [0.2, 0.1], base: 0.05 })).toBe(evaluations);
    const { up_proj, down_proj } = rows.at(-1)!.shares;
    expect(down_proj).toBeGreaterThan(up_proj);
  });

  it("takes the least harmful move, the first of equal ones, and stops at the level", async () => {
    const rows = await allocations.greedy({
      costs: { a: 1, b: 1 },
      levels: [0.5],
      base: 0.25,
      blockError: damage({ a: 1, b: 4 }),
    });
    expect(rows.map((row) => row.shares)).toEqual([
      { a: 0, b: 0 },
      { a: 0.25, b: 0 },
      { a: 0.5, b: 0 },
      { a: 0.5, b: 0.25 },
      { a: 0.75, b: 0.25 },
    ]);
    const tie = await allocations.greedy({
      costs: { a: 1, b: 1 },
      levels: [0.1],
      base: 0.05,
      blockError: async () => 1,
    });
    expect(tie[1].shares).toEqual({ a: 0.05, b: 0 });
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
            expect(row.sparsity).toBe(blockSparsity(costs, row.shares));
            for (const p of Object.values(row.shares)) expect(p).toBeLessThanOrEqual(1);
            before = row.sparsity;
          }
          for (const p of Object.values(rows.at(-1)!.shares)) expect(p).toBeCloseTo(1, 8);
        },
      ),
    );
  });

  it("is not worse than uniform under a separable convex error", async () => {
    const costs = llama3;
    const sensitivity = { q_proj: 1, k_proj: 1, v_proj: 3, o_proj: 2, gate_proj: 9, up_proj: 15, down_proj: 8 };
    const rows = await allocations.greedy({
      costs,
      base: 0.05,
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
      base: 0.05,
      signal: controller.signal,
      blockError: async () => {
        if (++evaluations === 3) controller.abort();
        return evaluations;
      },
    });
    await expect(aborted).rejects.toThrow(/abort/i);
    expect(evaluations).toBe(3);
    await expect(
      allocations.greedy({ costs: { a: 1 }, levels: [1], base: 0.05, blockError: async () => Number.NaN }),
    ).rejects.toThrow("the block's error is NaN with a at 0.05");
  });
});

describe("uniform allocation", () => {
  it("gives every map the level and evaluates nothing", async () => {
    const rows = await allocations.uniform({
      costs: { a: 1, b: 3 },
      levels: [0.5, 0.25],
      base: 0.05,
      blockError: () => Promise.reject(new Error("not to be called")),
    });
    expect(rows).toEqual([
      { sparsity: 0.25, shares: { a: 0.25, b: 0.25 } },
      { sparsity: 0.5, shares: { a: 0.5, b: 0.5 } },
    ]);
    expect(allocationEvaluations("uniform", { costs: { a: 1 }, levels: [0.5], base: 0.05 })).toBe(0);
  });
});

describe("nearestRow", () => {
  it("finds the nearest sparsity, the lower of equally near ones", () => {
    const rows = [0, 0.25, 0.5, 0.75].map((sparsity) => ({ sparsity, shares: { a: sparsity } }));
    expect(nearestRow(rows, 0.4).sparsity).toBe(0.5);
    expect(nearestRow(rows, 0.375).sparsity).toBe(0.25);
    expect(nearestRow(rows, 0.9).sparsity).toBe(0.75);
  });
});
