import { expect, test } from "vitest";
import type { ResultRow } from "./resultRow.js";
import { type TaskRow, taskDifference } from "./taskRow.js";
import { differenceInWords, taskConventions, taskLines } from "./taskTable.js";

const base = { task: "choice", metric: "acc", filter: "none", higherIsBetter: true, aggregation: "mean", shots: 0 };
const rowOf = (values: readonly number[], more: Partial<TaskRow> = {}): TaskRow => ({
  ...base,
  value: values.reduce((sum, value) => sum + value, 0) / values.length,
  standardError: 0.2,
  documents: values.length,
  sha256: "asked",
  values: values.join(" "),
  ...more,
});
const before = rowOf([1, 1, 1, 1, 1, 0, 0, 1, 1, 0]);

test("a difference is taken document by document, so that what both get wrong is no noise", () => {
  const after = rowOf([1, 0, 1, 1, 1, 0, 0, 1, 1, 0]);
  // Differences −1 and nine times 0: deviation √(0.9 / 9), over √10.
  const { difference, standardError, paired, withinNoise } = taskDifference(after, before);
  expect([difference, standardError]).toEqual([expect.closeTo(-0.1, 12), expect.closeTo(Math.sqrt(0.1 / 10), 12)]);
  expect([paired, withinNoise]).toEqual([true, true]);
  const worse = rowOf([0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
  expect(taskDifference(worse, before).withinNoise).toBe(false);
  // As if they were of other documents, both errors count.
  const apart = taskDifference({ ...after, values: undefined }, { ...before, values: undefined });
  expect([apart.paired, apart.standardError]).toEqual([false, expect.closeTo(Math.hypot(0.2, 0.2), 12)]);
});

test("e to a mean differs by as much as its mean changes it", () => {
  const logs = [1, 2, 3, 2];
  const of = rowOf(logs, { aggregation: "perplexity", value: Math.exp(2), higherIsBetter: false });
  const by = rowOf([1.1, 2.1, 3.1, 2.3], { aggregation: "perplexity", value: Math.exp(2.15), higherIsBetter: false });
  // 0.1, 0.1, 0.1, 0.3: deviation 0.1, over √4.
  expect(taskDifference(by, of).standardError).toBeCloseTo(0.05 * Math.exp(2), 9);
  expect(differenceInWords(by, [of])).toMatch(/^\+.*, worse$/);
});

test("the table says what is noise, what is not, and what asked other questions", () => {
  const row = (model: string, task: TaskRow) => ({ model, weights: "f32", tasks: [task] }) as unknown as ResultRow;
  const rows = [
    row("source", before),
    row("near", rowOf([1, 0, 1, 1, 1, 0, 0, 1, 1, 0])),
    row("far", rowOf([0, 0, 0, 0, 1, 0, 0, 0, 0, 0])),
    row("other", rowOf([1, 1], { sha256: "asked something else" })),
  ];
  const lines = taskLines(rows).slice(2);
  expect(lines.map((line) => line.split(/ {2,}/).at(-1))).toEqual([
    "0.7000 ± 0.2000",
    "−0.1000 ± 0.1000, within the noise",
    "−0.6000 ± 0.1633, worse",
    "other questions",
  ]);
  expect(taskConventions(rows).at(-1)).toContain("1.96 standard errors of the difference");
});
