import type { Candidate, Run } from "./data.js";
import { figure, type Html, heatmap, html } from "./figures/index.js";
import { folded } from "./folded.js";
import { groupOf } from "./groups.js";
import { layerLines } from "./lines.js";

/** What every layer and every matrix lost. */
export function layersSection({ candidates }: Run, colors: ReadonlyMap<string, string>): Html | undefined {
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
  (value) => `${(value * 100).toFixed(0)} %`,
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

/** The role of a map, which experts share, by its id. */
const roleOf = (id: string): string => id.split(".").at(-1)!;

function matrixMap(
  { layers = [] }: Candidate,
  title: string,
  pick: (matrix: Matrix) => number | undefined,
  max: number | undefined,
  label: (value: number) => string,
): Html | undefined {
  const roles = [...new Set(layers.flatMap(({ matrices }) => Object.keys(matrices).map(roleOf)))];
  const value = (row: number, col: number) => {
    // For experts, the mean is shown.
    const values = Object.entries(layers[row].matrices)
      .filter(([id]) => roleOf(id) === roles[col])
      .map(([, matrix]) => pick(matrix))
      .filter((found) => found !== undefined);
    return values.length > 0 ? values.reduce((sum, found) => sum + found, 0) / values.length : undefined;
  };
  const values = layers.flatMap((_, row) =>
    roles.map((_, col) => value(row, col)).filter((found) => found !== undefined),
  );
  if (!values.some((found) => found > 0)) return undefined;
  return figure(
    heatmap({
      title,
      rows: layers.map(({ source }) => String(source)),
      cols: roles,
      value,
      max: max ?? Math.max(...values),
      label,
    }),
  );
}
