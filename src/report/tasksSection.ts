import type { ResultRow, TaskRow } from "../eval/index.js";
import { differenceInWords, metricInWords } from "../eval/internal.js";
import type { Run } from "./data.js";
import { type Html, html } from "./figures/index.js";

const withError = ({ value, standardError }: TaskRow) =>
  standardError === undefined ? value.toFixed(4) : `${value.toFixed(4)} ± ${standardError.toFixed(4)}`;

/** The figures of tasks with their standard errors, and whether what differs from the source is more than noise. */
export function tasksSection({ source, candidates }: Run): Html | undefined {
  const rows: { name: string; row: ResultRow }[] = [
    ...(source === undefined ? [] : [{ name: source.model, row: source }]),
    ...candidates.flatMap(({ name, row }) => (row === undefined ? [] : [{ name, row }])),
  ];
  const lines = rows.flatMap(({ name, row }) => (row.tasks ?? []).map((figure) => ({ name, row, figure })));
  if (lines.length === 0) return undefined;
  const order = [...new Set(lines.map(({ figure }) => keyOf(figure)))];
  lines.sort((a, b) => order.indexOf(keyOf(a.figure)) - order.indexOf(keyOf(b.figure)));
  return html`<h2>Tasks</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Tasks"><table>
<thead><tr><th>task</th><th>metric</th><th>documents</th><th>examples</th><th>model</th><th>value</th><th>against the source</th></tr></thead>
<tbody>${lines.map(
    ({ name, row, figure }) =>
      html`<tr class="${row === source ? "source" : ""}"><td>${figure.task}</td><td>${metricInWords(figure)}</td><td>${figure.documents}</td><td>${figure.shots}</td><td>${name}</td><td>${withError(figure)}</td><td>${row === source ? "" : (differenceInWords(figure, source?.tasks) ?? "")}</td></tr>
`,
  )}</tbody>
</table></div>
<p class="soft">± one standard error. Within the noise: less than 1.96 standard errors of the difference, taken document by document where the figure is a mean.</p>`;
}

const keyOf = ({ task, metric, filter }: TaskRow) => JSON.stringify([task, metric, filter]);
