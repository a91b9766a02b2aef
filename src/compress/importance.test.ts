import { describe, expect, it } from "vitest";
import type { CoupledGroup } from "./contract.js";
import { joinMembers, lineScores } from "./importance.js";
import { method } from "./methods/llmPruner.js";
import { InputStatistics } from "./statistics.js";

const layer = (rows: number, cols: number, values: readonly number[]) => ({
  weight: Float32Array.from(values),
  rows,
  cols,
});

describe("joining the scores of matrices", () => {
  // One key head of two rows, with two query heads that read it.
  const members = [
    { layer: layer(4, 1, [1, 2, 3, 4]), axis: "rows" as const },
    { layer: layer(2, 1, [5, 6]), axis: "rows" as const },
  ];
  const lines = members.map(({ layer, axis }) =>
    lineScores(layer, axis, { entry: (i) => layer.weight[i], whole: (sum) => sum }),
  );
  // Folded: queries (1 + 3, 2 + 4), keys (5, 6).
  it.each([
    ["sum", 21],
    ["mean", 10.5],
    ["max", 11],
    ["prod", 56],
    ["first", 10],
    ["last", 11],
  ] as const)("%s", (how, expected) => {
    expect([...joinMembers({ count: 1, members }, lines, how)]).toEqual([expected]);
  });

  it("of units that are no multiples of one another, unit by unit", () => {
    const wide = { layer: layer(3, 1, [1, 2, 3]), axis: "rows" as const };
    const group = { count: 1, members: [wide, members[1]] };
    expect([...joinMembers(group, [Float64Array.of(1, 2, 3), Float64Array.of(5, 6)], "prod")]).toEqual([66]);
  });
});

describe("llm-pruner", () => {
  // Gate and up with 2 neurons, down with their columns; neuron 1 is dead.
  const members: CoupledGroup["members"] = [
    { layer: layer(2, 2, [1, -2, 0, 0]), axis: "rows" },
    { layer: layer(2, 2, [3, 4, 0.5, 0.5]), axis: "rows" },
    { layer: layer(2, 2, [1, 0, -1, 0]), axis: "columns" },
  ];
  const gradients = [
    [1, 1, 2, 2],
    [0.5, -0.25, 0, 0],
    [2, 1, 1, 1],
  ].map((values) => Float32Array.from(values));
  const statistics = gradients.map(
    (own) => new InputStatistics(2, 1, { gradients: own, squaredGradients: own.map((g) => g * g * 2) }),
  );
  const scores = (importance: string, aggregate = "sum") =>
    method.unitScores!({ count: 2, members }, statistics, method.options.parse({ importance, aggregate }));

  it.each([
    // |1| + |−2|; |1.5| + |−1|; |2| + |−1|
    ["first", 8.5],
    // 2·(1 + 4 + 2.25 + 1 + 4 + 1)
    ["second", 26.5],
    // |1−1| + |−2−4|; |1.5−2.25| + |−1−1|; |2−4| + |−1−1|
    ["mixed", 12.75],
    // |1−2|, |1.5−1|, |2−1|
    ["vector", 2.5],
    ["l1", 12],
    ["l2", Math.sqrt(5) + 5 + Math.sqrt(2)],
  ])("%s by hand, and a dead neuron counts least", (importance, expected) => {
    const [alive, dead] = scores(importance);
    expect(alive).toBeCloseTo(expected, 5);
    expect(dead).toBeLessThan(alive);
  });

  it("last takes the matrix behind the units alone", () => {
    expect([...scores("first", "last")]).toEqual([3, 0]);
  });

  it("random draws anew for another seed", () => {
    const options = (seed: number) => method.options.parse({ importance: "random", seed });
    const draw = (seed: number) => [...method.unitScores!({ count: 2, members }, statistics, options(seed))];
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });
});
