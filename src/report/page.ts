import type { ResultRow } from "../eval/index.js";
import { isJsonObject } from "../io/index.js";
import { projections, type TapSite, tapSites } from "../model/index.js";
import { trainingCurves } from "./curves.js";
import type { Candidate, ReportData, Run } from "./data.js";
import { heatmap } from "./heatmap.js";
import { activationHistogram } from "./histogram.js";
import { type Html, html } from "./html.js";
import { base64 } from "./join.js";
import { layerLines } from "./lines.js";
import type { MaskPicture } from "./masks.js";
import { greyPng } from "./png.js";
import { type Point, scatter } from "./scatter.js";
import { style } from "./style.js";

/** One self-contained page: no scripts, nothing fetched, everything that came from files escaped. */
export function reportPage(data: ReportData): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>rarefy report</title>
<style>${style}</style>
</head>
<body>
${data.runs.map(runSection)}
</body>
</html>
`.text;
}

function runSection(run: Run): Html {
  const colors = colorsOf(run.candidates);
  return html`<section>
<h1>${run.candidates.length === 1 ? run.candidates[0].name : `${run.source?.model ?? "Models"}: ${run.candidates.length} candidates`}</h1>
<p class="soft">${run.location}</p>
${table(run, colors)}
${pareto(run, colors)}
${layersSection(run, colors)}
${run.candidates.map(histograms)}
${run.candidates.map(({ name, training }) => training && trainingCurves(name, training))}
${masksSection(run)}
${details(run)}
<h2>Environment</h2>
<dl>${run.environment.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
</section>`;
}

// --- figures ---------------------------------------------------------------------------------------------------------

const percent = (value: number | undefined, digits = 1) =>
  value === undefined ? "" : `${(value * 100).toFixed(digits)} %`;
/** Of a rise, with its sign. */
const change = (share: number) => `${share < 0 ? "−" : "+"}${percent(Math.abs(share), Math.abs(share) < 1 ? 1 : 0)}`;
/** Three digits, also where they are zeros: figures stand below each other. */
const threeDigits = (value: number) => (value >= 1000 ? value.toFixed(0) : value.toPrecision(3));
const megabytes = (value: number | undefined) => (value === undefined ? "" : threeDigits(value / 1e6));
const times = (value: number | undefined, of: number | undefined) =>
  value === undefined || of === undefined || of === 0 ? "" : `${(value / of).toFixed(2)} ×`;

interface Column {
  title: string;
  cell(row: ResultRow, source: ResultRow | undefined): string;
}

const columns: readonly Column[] = [
  { title: "weights", cell: (row) => row.weights },
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
    cell: (row) => (row.decodeTokensPerSecond === undefined ? "" : threeDigits(row.decodeTokensPerSecond)),
  },
  {
    title: "speed",
    cell: (row, source) => (row === source ? "" : times(row.decodeTokensPerSecond, source?.decodeTokensPerSecond)),
  },
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
<div class="scroll"><table>
<thead><tr><th>model</th>${used.map(({ title }) => html`<th>${title}</th>`)}</tr></thead>
<tbody>${rows.map(
    ({ name, row, color }) => html`<tr class="${row === source ? "source" : ""}"><td>${
      color !== undefined && html`<i style="background:${color}"></i>`
    }${name}</td>${used.map(({ cell }) => html`<td>${cell(row, source)}</td>`)}</tr>
`,
  )}</tbody>
</table></div>`;
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
    return scatter(points, colors, { ...options, yLabel: "perplexity", reference });
  };
  const charts = [
    chart((row) => row.bytesOnDisk && row.bytesOnDisk / 1e6, {
      title: "Perplexity against size",
      xLabel: "MB on disk",
      better: "less",
      levels: true,
    }),
    chart((row) => row.decodeTokensPerSecond, {
      title: "Perplexity against speed",
      xLabel: "decoded tokens per second",
      better: "more",
      // Speeds do not rise with every weight that goes.
      levels: false,
    }),
  ].filter((found) => found !== undefined);
  if (charts.length === 0) return undefined;
  return html`<h2>What pays</h2>
<p class="soft">Dashed: what no other model beats in both measures. Lower is better; smaller is to the left, faster to the right. Thin lines join what one method gives at different shares of zeros; a triangle at the upper edge lies above it.</p>
<div class="charts">${charts}</div>
${legend(candidates, colors)}`;
}

function layersSection({ candidates }: Run, colors: ReadonlyMap<string, string>): Html | undefined {
  const withLayers = candidates.filter((candidate) => (candidate.layers?.length ?? 0) > 0);
  if (withLayers.length === 0) return undefined;
  const lines = (value: (candidate: Candidate) => (number | undefined)[]) =>
    withLayers
      .map((candidate) => ({
        name: candidate.name,
        color: colors.get(groupOf(candidate))!,
        values: value(candidate),
      }))
      .filter(({ values }) => values.some((found) => found !== undefined));
  const errors = lines(meanErrors);
  const sparsities = lines(meanSparsities);
  return html`<h2>Layers</h2>
<div class="charts">
${sparsities.length > 0 && layerLines(sparsities, "Share of zeros per layer, over all its matrices", "zeros", [0, 1])}
${errors.length > 0 && layerLines(errors, "Reconstruction error per layer (root mean square over its matrices)", "‖(Ŵ − W)x‖ / ‖Wx‖")}
</div>
${folded(
  "Every matrix, model by model",
  withLayers.length,
  html`${withLayers.map(
    (candidate) => html`<details><summary>${candidate.name}: every matrix</summary><div class="charts">
${matrixMap(
  candidate,
  "Share of zeros",
  ({ sparsity }) => sparsity,
  1,
  (value) => percent(value, 0),
)}
${matrixMap(
  candidate,
  "Reconstruction error",
  ({ relativeError }) => relativeError,
  undefined,
  (value) => value.toFixed(3),
)}
</div></details>`,
  )}`,
)}`;
}

/** More models than this are folded away together: on a phone their titles alone are pages. */
const manyModels = 6;

const folded = (title: string, models: number, content: Html): Html =>
  models <= manyModels ? content : html`<details><summary>${title}</summary>${content}</details>`;

type Matrix = NonNullable<Candidate["layers"]>[number]["matrices"][string];

function meanSparsities({ layers = [] }: Candidate): (number | undefined)[] {
  return layers.map(({ matrices }) => {
    const all = Object.values(matrices);
    const entries = all.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    return entries === 0
      ? undefined
      : all.reduce((sum, { rows, cols, sparsity }) => sum + sparsity * rows * cols, 0) / entries;
  });
}

function meanErrors({ layers = [] }: Candidate): (number | undefined)[] {
  return layers.map(({ matrices }) => {
    const errors = Object.values(matrices).flatMap(({ relativeError }) =>
      relativeError === undefined ? [] : [relativeError],
    );
    return errors.length === 0
      ? undefined
      : Math.sqrt(errors.reduce((sum, error) => sum + error ** 2, 0) / errors.length);
  });
}

function matrixMap(
  { layers = [] }: Candidate,
  title: string,
  pick: (matrix: Matrix) => number | undefined,
  max: number | undefined,
  label: (value: number) => string,
): Html | undefined {
  const value = (row: number, col: number) => {
    // Of experts the mean.
    const values = Object.entries(layers[row].matrices)
      .filter(([key]) => key.split(".").at(-1) === projections[col])
      .map(([, matrix]) => pick(matrix))
      .filter((found) => found !== undefined);
    return values.length > 0 ? values.reduce((sum, found) => sum + found, 0) / values.length : undefined;
  };
  const values = layers.flatMap((_, row) =>
    projections.map((_, col) => value(row, col)).filter((found) => found !== undefined),
  );
  if (!values.some((found) => found > 0)) return undefined;
  return heatmap({
    title,
    rows: layers.map(({ source }) => String(source)),
    cols: projections.map((name) => name.replace("_proj", "")),
    value,
    max: max ?? Math.max(...values),
    label,
  });
}

/** Activations of the first, the middle and the last layer, with the thresholds that they are compared with. */
function histograms({ name, activations, activationSparsity }: Candidate): Html | undefined {
  if (activations === undefined || activations.length === 0) return undefined;
  const chosen = [...new Set([0, Math.floor(activations.length / 2), activations.length - 1])];
  const figures = chosen.flatMap((layer) =>
    (Object.keys(tapSites) as TapSite[]).flatMap((site) => {
      const found = Object.hasOwn(activations[layer], site) ? activations[layer][site] : undefined;
      if (found === undefined) return [];
      const cuts = activationSparsity?.layers[layer];
      const thresholds =
        site === "mlpGate"
          ? [{ name: "gate", value: cuts?.gate?.threshold ?? 0 }]
          : tapSites[site].map((projection) => ({
              name: projection,
              value: cuts?.projections[projection].threshold ?? 0,
            }));
      return [
        activationHistogram(
          `layer ${layer}, ${site}`,
          found,
          thresholds.filter(({ value }) => value > 0),
        ),
      ];
    }),
  );
  return html`<h2>Activations and thresholds: ${name}</h2>
<p class="soft">|x| in front of the matrices, as seen in calibration; what lies left of a line counts as zero. The largest tenth is left off.</p>
<div class="histograms">${figures}</div>`;
}

/** A few weights are 0 by chance; a picture is of what was made so. */
const fewestZeros = 0.005;

function masksSection({ candidates }: Run): Html | undefined {
  const pictures = candidates.flatMap(({ name, masks = [] }) =>
    masks.filter(({ overview }) => meanOf(overview.pixels) > fewestZeros * 255).map((mask) => maskFigure(name, mask)),
  );
  if (pictures.length === 0) return undefined;
  return html`<h2>Masks</h2>
<p class="soft">Dark is kept, light is zero. First the upper left corner, one pixel a weight; below it the whole matrix, cells shaded by their share of zeros.</p>
<div class="pictures">${pictures}</div>`;
}

const meanOf = (values: Uint8Array) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

function maskFigure(name: string, { name: tensor, rows, cols, corner, overview }: MaskPicture): Html {
  const picture = ({ pixels, width, height }: MaskPicture["corner"]) =>
    html`<img alt="" width="${width}" height="${height}" src="data:image/png;base64,${base64(greyPng(pixels, width, height))}">`;
  const [, layer, matrix] = /\.layers\.(\d+)\..*?([^.]+)\.weight$/.exec(tensor) ?? [];
  const where = layer === undefined ? tensor : `layer ${layer}, ${matrix}`;
  return html`<figure>${picture(corner)}${picture(overview)}<figcaption><b>${name}</b><br>${where}<br>${rows} × ${cols}</figcaption></figure>`;
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

// --- colours ---------------------------------------------------------------------------------------------------------

/** Told apart with all common kinds of colour blindness, on white and on black (Okabe and Ito). */
const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c00", "#808080"];

/** Stages of a recipe; none for what is no recipe. */
function stagesOf({ recipe }: Candidate): Record<string, unknown>[] {
  return (isJsonObject(recipe) && Array.isArray(recipe.stages) ? recipe.stages : []).filter(isJsonObject);
}

const units = new Set(["rows", "columns", "neurons", "heads", "block"]);

/** Candidates made by the same methods share a colour: "sparsegpt + gptq", "wanda neurons". Without a recipe the name tells. */
export function groupOf(candidate: Candidate): string {
  const methods = stagesOf(candidate).map(({ method, type, pattern }) => {
    const unit = isJsonObject(pattern) && units.has(String(pattern.type)) ? ` ${String(pattern.type)}` : "";
    return `${String(method ?? type)}${unit}`;
  });
  return methods.length > 0 ? [...new Set(methods)].join(" + ") : candidate.name;
}

/** The share of zeros that a recipe asks for, where it asks for one: what may be joined to a line. */
function levelOf(candidate: Candidate): number | undefined {
  const levels = stagesOf(candidate).map(({ pattern, keepRatio }) =>
    isJsonObject(pattern) && typeof pattern.sparsity === "number"
      ? pattern.sparsity
      : typeof keepRatio === "number"
        ? 1 - keepRatio
        : undefined,
  );
  return levels.length > 0 && levels.every((level) => level !== undefined) ? Math.max(...levels) : undefined;
}

function colorsOf(candidates: readonly Candidate[]): Map<string, string> {
  const groups = [...new Set(candidates.map(groupOf))];
  return new Map(groups.map((group, i) => [group, palette[i % palette.length]]));
}

function legend(candidates: readonly Candidate[], colors: ReadonlyMap<string, string>): Html {
  const groups = [...new Set(candidates.map(groupOf))];
  return html`<p class="soft">${groups.map(
    (group) => html`<span class="key"><b style="color:${colors.get(group)!}">●</b> ${group}</span> `,
  )}</p>`;
}
