import { escapeXml } from "./chart.js";
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
export function htmlPage(experiment: Experiment, scale: Scale, report: ExperimentReport): string {
  const e = escapeXml;
  const cells = (tag: string, row: readonly string[]) =>
    `<tr>${row.map((c) => `<${tag}>${e(c)}</${tag}>`).join("")}</tr>`;
  const tables = report.tables.map(
    ({ title, columns, rows }) =>
      `<h2>${e(title)}</h2><table><thead>${cells("th", columns)}</thead><tbody>${rows.map((row) => cells("td", row)).join("\n")}</tbody></table>`,
  );
  const protocol = [["scale", scale] as const, ...report.protocol];
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>${e(experiment.title)}</title>
<style>body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}table{border-collapse:collapse;font-size:13px}
td,th{border:1px solid #ccc;padding:2px 8px;text-align:right}td:first-child,th:first-child{text-align:left}figure{margin:2em 0}svg{max-width:100%}</style>
<h1>${e(experiment.title)}</h1><p>${e(experiment.description)}</p>
<h2>Protocol</h2><dl>${protocol.map(([name, value]) => `<dt><b>${e(name)}</b></dt><dd>${e(value)}</dd>`).join("\n")}</dl>
${tables.join("\n")}
${report.notes.length === 0 ? "" : `<h2>Notes</h2><ul>${report.notes.map((note) => `<li>${e(note)}</li>`).join("\n")}</ul>`}
${report.figures.map(({ title, svg }) => `<figure>${svg}<figcaption>${e(title)}</figcaption></figure>`).join("\n")}
</html>
`;
}
