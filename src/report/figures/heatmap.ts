import { html } from "./html.js";
import type { Picture } from "./svg.js";

/** Rows and columns by name, the number of each cell, and how it is written. */
export interface HeatmapOptions {
  title: string;
  rows: readonly string[];
  cols: readonly string[];
  /** undefined: nothing was measured. */
  value(row: number, col: number): number | undefined;
  /** The value of the darkest cell. */
  max: number;
  label(value: number): string;
}

const [cellWidth, cellHeight, left, top] = [62, 18, 30, 22];

/** A table of shaded cells with their values. */
export function heatmap({ title, rows, cols, value, max, label }: HeatmapOptions): Picture {
  const [width, height] = [left + cols.length * cellWidth, top + rows.length * cellHeight];
  const cells = rows.flatMap((row, r) =>
    cols.map((col, c) => {
      const found = value(r, c);
      if (found === undefined) return undefined;
      const [x, y] = [left + c * cellWidth, top + r * cellHeight];
      const shade = max > 0 ? Math.min(1, Math.max(0, found / max)) : 0;
      return html`<rect x="${x}" y="${y}" width="${cellWidth - 1}" height="${cellHeight - 1}" class="cell" fill-opacity="${shade.toFixed(2)}"><title>layer ${row}, ${col}: ${label(found)}</title></rect>
<text x="${x + cellWidth / 2}" y="${y + 13}" text-anchor="middle" class="${shade > 0.55 ? "light" : ""}">${label(found)}</text>`;
    }),
  );
  return {
    width,
    height,
    title,
    body: html`${cols.map((col, c) => html`<text x="${left + (c + 0.5) * cellWidth}" y="14" text-anchor="middle">${col}</text>`)}
${rows.map((row, r) => html`<text x="${left - 6}" y="${top + r * cellHeight + 13}" text-anchor="end">${row}</text>`)}
${cells}`,
  };
}
