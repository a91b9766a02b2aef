import type { TaskRow } from "../eval/index.js";
import type { TaskResult } from "./evaluateTasks.js";

/** Aggregations of which differences can be told document by document. */
const paired = new Set(["mean", "perplexity"]);

/** The figures of tasks, as rows of results have them. */
export function taskRows(results: readonly TaskResult[]): TaskRow[] {
  return results.flatMap(({ task, shots, documents, sha256, figures }) =>
    figures.map(({ metric, filter, value, standardError, higherIsBetter, aggregation, values }): TaskRow => {
      const row: TaskRow = {
        task: task.name,
        metric,
        filter,
        value,
        higherIsBetter,
        aggregation,
        shots,
        documents: documents.asked,
        sha256,
      };
      if (standardError !== undefined) row.standardError = standardError;
      if (paired.has(aggregation)) row.values = values.join(" ");
      return row;
    }),
  );
}
