import type { ResultRow } from "./resultRow.js";
import { sameTask, type TaskRow, taskDifference } from "./taskRow.js";

const figure = (value: number) =>
  Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(Math.abs(value) >= 10 ? 2 : 4);
const withError = (value: number, error: number | undefined) =>
  error === undefined ? figure(value) : `${figure(value)} ± ${figure(error)}`;
const signed = (value: number) => (value < 0 ? "−" : value > 0 ? "+" : "");

/** "−0.0250 ± 0.0120", and whether that is more than noise; undefined where the first row asked something else. */
export function differenceInWords(row: TaskRow, first: readonly TaskRow[] | undefined): string | undefined {
  const of = sameTask(first, row);
  if (of === undefined) return undefined;
  const { difference, standardError, withinNoise } = taskDifference(row, of);
  const words = `${signed(difference)}${withError(Math.abs(difference), standardError)}`;
  if (withinNoise === undefined) return words;
  if (withinNoise) return `${words}, within the noise`;
  return `${words}, ${difference > 0 === row.higherIsBetter ? "better" : "worse"}`;
}

/** "acc", or "exact_match (strict-match)". */
export const metricInWords = ({ metric, filter }: TaskRow): string =>
  filter === "none" ? metric : `${metric} (${filter})`;

/** One line for each figure of each row, those of one task and metric together; differences are from the first row. */
export function taskLines(rows: readonly ResultRow[]): string[] {
  const figures = new Map<string, TaskRow>();
  for (const { tasks = [] } of rows) {
    for (const row of tasks) {
      const key = JSON.stringify([row.task, row.metric, row.filter]);
      if (!figures.has(key)) figures.set(key, row);
    }
  }
  const lines = [["task", "metric", "model", "value", "against the first row"]];
  for (const { task, metric, filter } of figures.values()) {
    let named = false;
    for (const { model, tasks = [] } of rows) {
      const row = tasks.find((one) => one.task === task && one.metric === metric && one.filter === filter);
      if (row === undefined) continue;
      const against = tasks === rows[0].tasks ? "" : (differenceInWords(row, rows[0].tasks) ?? "other questions");
      const name = named ? ["", ""] : [task, metricInWords(row)];
      lines.push([...name, model, withError(row.value, row.standardError), against]);
      named = true;
    }
  }
  const widths = lines[0].map((_, c) => Math.max(...lines.map((line) => line[c].length)));
  const padded = (line: readonly string[]) =>
    line
      .map((cell, c) => cell.padEnd(widths[c]))
      .join("  ")
      .trimEnd();
  const used = rows.length > 1 ? lines : lines.map((line) => line.slice(0, -1));
  const [heading, ...rest] = used.map(padded);
  const shown = used[0].map((_, c) => "─".repeat(widths[c])).join("  ");
  return [heading, shown, ...rest];
}

/** How the figures of tasks came about. */
export function taskConventions(rows: readonly ResultRow[]): string[] {
  const all = rows.flatMap(({ tasks = [] }) => tasks);
  if (all.length === 0) return [];
  const facts = new Map(
    all.map(({ task, documents, shots }) => [
      task,
      `${task} ${documents} documents, ${shots} example${shots === 1 ? "" : "s"} each`,
    ]),
  );
  const sentences = [`tasks: ${[...facts.values()].join("; ")}; ± one standard error.`];
  if (rows.length > 1) {
    sentences.push(
      "within the noise: less than 1.96 standard errors of the difference, document by document where the figure is a mean.",
    );
  }
  return sentences;
}
