import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { fakeScorer } from "../../scripts/lmeval/fake.mjs";
import { evaluateTasks, prepareTasks, readTasks } from "../../src/tasks/index.js";
import { taskFolder } from "../../src/tasks/index.node.js";

/** What lm-evaluation-harness asked and made of the task files beside it; `scripts/check-lm-eval.mjs --golden` writes it. */
const folder = fileURLToPath(new URL("../golden/lm-eval", import.meta.url));
interface Golden {
  resamples: number;
  expected: { shots: number; results: Record<string, Record<string, number | string>>; asked: unknown[][] }[];
}
const { resamples, expected }: Golden = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));
const files = taskFolder(folder);
const sorted = (asked: readonly unknown[]) => asked.map((one) => JSON.stringify(one)).sort();

describe("as lm-evaluation-harness", () => {
  test.each(expected)("asks and counts with $shots examples", async ({ shots, results, asked }) => {
    const tasks = await readTasks(files, ["."]);
    expect(tasks.map(({ name }) => name).sort()).toEqual(Object.keys(results).sort());
    const scorer = fakeScorer();
    const found = await evaluateTasks(scorer, await prepareTasks(tasks, { tasks: files }, { shots }), { resamples });
    expect(sorted(scorer.asked)).toEqual(sorted(asked));
    let figures = 0;
    for (const { task, figures: own } of found) {
      for (const { metric, filter, value, standardError } of own) {
        const name = `${task.name} ${metric},${filter}`;
        const wanted = results[task.name];
        expect(value, name).toBeCloseTo(wanted[`${metric},${filter}`] as number, 10);
        const error = wanted[`${metric}_stderr,${filter}`];
        if (error === "N/A") expect(standardError, name).toBeUndefined();
        else expect(standardError, name).toBeCloseTo(error as number, 10);
        figures++;
      }
    }
    expect(figures).toBe(20);
  });
});
