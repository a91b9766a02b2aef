import { type Html, html } from "./html.js";
import { type Scale, short } from "./scale.js";
import { px } from "./svg.js";

/** Edges of the area that is plotted in. */
export interface Plot {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

export interface AxesOptions {
  xLabel: string;
  yLabel?: string;
  /** Lines at the ticks of x as well as of y. */
  gridX?: boolean;
}

/** Grid, numbers at the ticks, and the names of both axes. */
export function axes(plot: Plot, x: Scale, y: Scale, { xLabel, yLabel, gridX = false }: AxesOptions): Html {
  return html`${x.ticks.map(
    (tick) =>
      html`${
        gridX && html`<line class="grid" x1="${px(x(tick))}" x2="${px(x(tick))}" y1="${plot.top}" y2="${plot.bottom}"/>`
      }<text x="${px(x(tick))}" y="${plot.bottom + 15}" text-anchor="middle">${short(tick)}</text>`,
  )}
${y.ticks.map(
  (tick) => html`<line class="grid" x1="${plot.left}" x2="${plot.right}" y1="${px(y(tick))}" y2="${px(y(tick))}"/>
<text x="${plot.left - 5}" y="${px(y(tick) + 4)}" text-anchor="end">${short(tick)}</text>`,
)}
<text class="axis" x="${(plot.left + plot.right) / 2}" y="${plot.bottom + 34}" text-anchor="middle">${xLabel}</text>
${
  yLabel !== undefined &&
  html`<text class="axis" transform="translate(12 ${(plot.top + plot.bottom) / 2}) rotate(-90)" text-anchor="middle">${yLabel}</text>`
}`;
}
