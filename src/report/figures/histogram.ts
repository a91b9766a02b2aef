import type { SiteQuantiles } from "../../io/index.js";
import { html } from "./html.js";
import { linearScale, short } from "./scale.js";
import { type Picture, px } from "./svg.js";

export interface Threshold {
  name: string;
  value: number;
}

const [width, height] = [190, 125];
const plot = { left: 8, right: width - 8, top: 6, bottom: height - 22 };

/**
 * The distribution of |x| at one place: bars of equal mass between the stored quantiles, so a bar's height is the density; the
 * largest tenth of the values is left off. Vertical lines are thresholds.
 */
export function activationHistogram(
  title: string,
  { absQuantiles }: SiteQuantiles,
  thresholds: readonly Threshold[],
): Picture {
  const shown = absQuantiles.slice(0, 18);
  const largest = Math.max(shown.at(-1)!, ...thresholds.map(({ value }) => value), Number.MIN_VALUE);
  const x = linearScale([0, largest], [plot.left, plot.right]);
  const bars = shown.map((high, i) => ({ low: i === 0 ? 0 : shown[i - 1], high }));
  const densities = bars.map(({ low, high }) => (high > low ? 1 / (high - low) : 0));
  const densest = Math.max(...densities, Number.MIN_VALUE);
  const y = (density: number) => plot.bottom - (density / densest) * (plot.bottom - plot.top);
  return {
    width,
    height,
    title,
    body: html`${bars.map(
      ({ low, high }, i) =>
        high > low &&
        html`<rect class="bar" x="${px(x(low))}" width="${px(Math.max(0.4, x(high) - x(low) - 0.3))}" y="${px(y(densities[i]))}" height="${px(plot.bottom - y(densities[i]))}"/>`,
    )}
${x.ticks.map((tick) => html`<text x="${px(x(tick))}" y="${plot.bottom + 14}" text-anchor="middle">${short(tick)}</text>`)}
${thresholds.map(
  ({ name, value }) =>
    html`<line class="threshold" x1="${px(x(value))}" x2="${px(x(value))}" y1="${plot.top}" y2="${plot.bottom}"><title>${name}: ${short(value)}</title></line>`,
)}`,
  };
}
