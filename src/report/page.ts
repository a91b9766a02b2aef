import type { ResultRow } from "../eval/index.js";
import { runsAsInWords, speedRatio } from "../eval/internal.js";
import { activationsSection } from "./activationsSection.js";
import { trainingCurves } from "./curves.js";
import type { ReportData, Run } from "./data.js";
import { document, figure, type Html, html, type Point, scatter } from "./figures/index.js";
import { folded } from "./folded.js";
import { colorsOf, groupOf, legend, levelOf } from "./groups.js";
import { layersSection } from "./layersSection.js";
import { masksSection } from "./masksSection.js";
import { change, megabytes, percent, threeDigits, times } from "./numbers.js";
import { summaryOf } from "./summary.js";
import { tasksSection } from "./tasksSection.js";

/** What every run cost and gave, as one self-contained page. */
export async function reportPage(data: ReportData): Promise<string> {
  return document("rarefy report", html`${await Promise.all(data.runs.map(runSection))}`);
}

async function runSection(run: Run): Promise<Html> {
  const colors = colorsOf(run.candidates);
  return html`<section>
<h1>${run.candidates.length === 1 ? run.candidates[0].name : `${run.source?.model ?? "Models"}: ${run.candidates.length} candidates`}</h1>
<p class="soft">${run.location}${run.made && `, made ${day(run.made)}`}</p>
${summaryOf(run).map((sentence) => html`<p>${sentence}</p>`)}
${table(run, colors)}
${tasksSection(run)}
${pareto(run, colors)}
${layersSection(run, colors)}
${run.candidates.map(activationsSection)}
${run.candidates.map(({ name, training }) => training && trainingCurves(name, training))}
${await masksSection(run)}
${details(run)}
<h2>Environment</h2>
<dl>${run.environment.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
</section>`;
}

/** "2026-11-30 02:10 UTC" */
const day = (iso: string) => `${iso.slice(0, 16).replace("T", " ")} UTC`;

interface Column {
  title: string;
  cell(row: ResultRow, source: ResultRow | undefined): string;
}

const columns: readonly Column[] = [
  { title: "weights", cell: (row) => row.weights },
  { title: "runs as", cell: (row) => runsAsInWords(row) ?? "" },
  { title: "perplexity", cell: (row) => row.perplexity?.toFixed(2) ?? "" },
  {
    title: "change",
    cell: (row, source) =>
      row === source || !row.perplexity || !source?.perplexity ? "" : change(row.perplexity / source.perplexity - 1),
  },
  { title: "zero inputs", cell: (row) => (row.activationSparsity > 0 ? percent(row.activationSparsity) : "") },
  { title: "numbers stored", cell: (row) => percent(row.densityStored) },
  { title: "MB on disk", cell: (row) => megabytes(row.bytesOnDisk) },
  { title: "size", cell: (row, source) => (row === source ? "" : times(row.bytesOnDisk, source?.bytesOnDisk)) },
  {
    title: "decode tok/s",
    cell: ({ decodeTokensPerSecond: speed }) =>
      speed === undefined
        ? ""
        : `${threeDigits(speed.median)} (${speed.samples > 1 ? `${threeDigits(speed.min)}–${threeDigits(speed.max)}` : "once"})`,
  },
  {
    title: "speed",
    cell: (row, source) =>
      row === source || source === undefined || row.decodeTokensPerSecond === undefined
        ? ""
        : times(speedRatio(row, source), 1) || "–",
  },
  { title: "MB per token", cell: (row) => megabytes(row.bytesPerToken) },
  { title: "peak MB", cell: (row) => megabytes(row.peakMemoryBytes) },
  { title: "made in s", cell: (row) => (row.elapsedMs === undefined ? "" : threeDigits(row.elapsedMs / 1000)) },
];

/** Before and after: the source, then every candidate. Columns that no row has are left out. */
function table({ source, candidates }: Run, colors: ReadonlyMap<string, string>): Html | undefined {
  const rows = [
    ...(source === undefined ? [] : [{ name: source.model, row: source, color: undefined }]),
    ...candidates.flatMap((candidate) => {
      const { name, row } = candidate;
      return row === undefined ? [] : [{ name, row, color: colors.get(groupOf(candidate)) }];
    }),
  ];
  if (rows.length === 0) return undefined;
  const used = columns.filter(({ cell }) => rows.some(({ row }) => cell(row, source) !== ""));
  return html`<h2>Before and after</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Before and after"><table>
<thead><tr><th>model</th>${used.map(({ title }) => html`<th>${title}</th>`)}</tr></thead>
<tbody>${rows.map(
    ({ name, row, color }) => html`<tr class="${row === source ? "source" : ""}"><td>${
      color !== undefined && html`<i style="background:${color}"></i>`
    }${name}</td>${used.map(({ cell }) => html`<td>${cell(row, source)}</td>`)}</tr>
`,
  )}</tbody>
</table></div>
${
  rows.some(({ row }) => row.peakMemoryBytes !== undefined) &&
  html`<p class="soft">Peak: the most that the model's backend held, not the memory of the process.</p>`
}
${
  rows.some(({ row }) => row.decodeTokensPerSecond !== undefined) &&
  html`<p class="soft">Decode: median and range of the rounds. Speed: – where the ranges meet, or where bytes and kernels are those of the source. Runs as: how the matrices lie in memory on the machine that measured.</p>`
}`;
}

/** Perplexity against size and against speed, for runs with more than one candidate measured. */
function pareto({ source, candidates }: Run, colors: ReadonlyMap<string, string>): Html | undefined {
  const chart = (
    x: (row: ResultRow) => number | undefined,
    { levels, ...options }: { title: string; xLabel: string; better: "less" | "more"; levels: boolean },
  ) => {
    const pointOf = (name: string, group: string, row: ResultRow | undefined): Point[] => {
      const [at, perplexity] = [row && x(row), row?.perplexity];
      return at === undefined || perplexity === undefined ? [] : [{ name, group, x: at, y: perplexity }];
    };
    const points = candidates.flatMap((candidate) =>
      pointOf(candidate.name, groupOf(candidate), candidate.row).map((point) => ({
        ...point,
        level: levels ? levelOf(candidate) : undefined,
      })),
    );
    if (points.length < 2) return undefined;
    const [reference] = source === undefined ? [] : pointOf(source.model, "", source);
    return figure(scatter(points, colors, { ...options, yLabel: "perplexity", reference }));
  };
  const charts = [
    chart((row) => row.bytesOnDisk && row.bytesOnDisk / 1e6, {
      title: "Perplexity against size",
      xLabel: "MB on disk",
      better: "less",
      levels: true,
    }),
    // Where ranges meet or bytes and kernels are the same, a place on the axis would be the machine's and not the model's.
    chart(
      (row) => (row === source || (source && speedRatio(row, source)) ? row.decodeTokensPerSecond?.median : undefined),
      {
        title: "Perplexity against speed",
        xLabel: "decoded tokens per second",
        better: "more",
        // Speeds do not rise with every weight that goes.
        levels: false,
      },
    ),
  ].filter((found) => found !== undefined);
  if (charts.length === 0) return undefined;
  return html`<h2>What pays</h2>
<p class="soft">Dashed: what no other model beats in both measures. Lower is better; smaller is to the left, faster to the right. Thin lines join what one method gives at different shares of zeros; a triangle at the upper edge lies above it.</p>
<div class="charts">${charts}</div>
${legend(candidates, colors)}`;
}

function details({ candidates }: Run): Html | undefined {
  const withRecipe = candidates.filter(({ recipe }) => recipe !== undefined);
  if (withRecipe.length === 0) return undefined;
  return html`<h2>Recipes</h2>
${folded(
  "Every recipe",
  withRecipe.length,
  html`${withRecipe.map(
    ({ name, recipe }) =>
      html`<details><summary>${name}</summary><pre>${JSON.stringify(recipe, undefined, 2)}</pre></details>`,
  )}`,
)}`;
}
