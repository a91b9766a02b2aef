import { document, figure, html } from "../../report/internal.js";
import type { Experiment, ExperimentReport, ResultTable, Scale } from "./contract.js";

/** The report as Markdown; figures are linked by file name. */
export function markdownPage(experiment: Experiment, scale: Scale, report: ExperimentReport): string {
  const lines = [`# ${experiment.title}`, "", experiment.description, "", "## Protocol", ""];
  for (const [name, value] of [["scale", scale] as const, ...report.protocol]) lines.push(`- ${name}: ${value}`);
  for (const table of report.tables) lines.push("", `## ${table.title}`, "", markdownTable(table));
  if (report.notes.length > 0) lines.push("", "## Notes", "", ...report.notes.map((note) => `- ${note}`));
  for (const { name, title } of report.figures) lines.push("", `![${title}](${name}.svg)`);
  return `${lines.join("\n")}\n`;
}

export function markdownTable({ columns, rows }: ResultTable): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(columns), line(columns.map((_, c) => (c === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

/** The report as one HTML file with its figures inside; no script, nothing fetched. */
export function htmlPage({ title, description }: Experiment, scale: Scale, report: ExperimentReport): string {
  const protocol = [["scale", scale] as const, ...report.protocol];
  return document(
    title,
    html`<h1>${title}</h1><p>${description}</p>
<h2>Protocol</h2>
<dl>${protocol.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
${report.tables.map(
  ({ title, columns, rows }) => html`<h2>${title}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="${title}"><table>
<thead><tr>${columns.map((name) => html`<th>${name}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>\n`)}</tbody>
</table></div>`,
)}
${report.notes.length > 0 && html`<h2>Notes</h2><ul>${report.notes.map((note) => html`<li>${note}</li>`)}</ul>`}
<div class="charts">${report.figures.map(({ title, picture }) => figure({ ...picture, title }))}</div>`,
  );
}
