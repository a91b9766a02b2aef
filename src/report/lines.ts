import { type Html, html } from "./html.js";
import { linearScale, logScale, short } from "./scale.js";

export interface Line {
  name: string;
  color: string;
  /** One value per layer. */
  values: readonly (number | undefined)[];
}

const [width, height] = [380, 230];
const longestName = 16;
const plot = { left: 48, right: width - 112, top: 14, bottom: height - 40 };

/**
 * Values over layers, one line per model, named at its end where there is room.
 * @param range of y; left out, that of the values, logarithmic where it spans much
 */
export function layerLines(
  lines: readonly Line[],
  title: string,
  yLabel: string,
  range?: readonly [number, number],
): Html {
  const values = lines.flatMap((line) => line.values.filter((value) => value !== undefined));
  const layers = Math.max(...lines.map((line) => line.values.length));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = linearScale([0, Math.max(1, layers - 1)], [plot.left + 8, plot.right - 8]);
  const logarithmic = range === undefined && low > 0 && high / low > 3;
  const y = (logarithmic ? logScale : linearScale)(
    range ?? (logarithmic ? [low / 1.1, high * 1.1] : [Math.min(0, low), high * 1.05]),
    [plot.bottom, plot.top],
  );
  const layerTicks = x.ticks.filter(Number.isInteger);
  return html`<figure>
<figcaption>${title}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
${layerTicks.map((tick) => html`<text x="${px(x(tick))}" y="${plot.bottom + 15}" text-anchor="middle">${tick}</text>`)}
${y.ticks.map(
  (tick) => html`<line class="grid" x1="${plot.left}" x2="${plot.right}" y1="${px(y(tick))}" y2="${px(y(tick))}"/>
<text x="${plot.left - 5}" y="${px(y(tick) + 4)}" text-anchor="end">${short(tick)}</text>`,
)}
<text class="axis" x="${(plot.left + plot.right) / 2}" y="${height - 6}" text-anchor="middle">layer</text>
<text class="axis" transform="translate(12 ${(plot.top + plot.bottom) / 2}) rotate(-90)" text-anchor="middle">${yLabel}</text>
${lines.map(({ name, color, values }) => {
  const points = values.flatMap((value, layer) => (value === undefined ? [] : [`${px(x(layer))},${px(y(value))}`]));
  return html`<polyline fill="none" stroke="${color}" stroke-width="1.6" points="${points.join(" ")}"><title>${name}</title></polyline>`;
})}
${names(lines, layers, x, y)}
</svg>
</figure>`;
}

/** Names at the ends of lines; of lines that end together the first stands for the others. */
function names(
  lines: readonly Line[],
  layers: number,
  x: (value: number) => number,
  y: (value: number) => number,
): Html[] {
  const taken: { name: string; at: number; others: number }[] = [];
  for (const { name, values } of lines) {
    const last = values[layers - 1];
    if (last === undefined) continue;
    const near = taken.find((other) => Math.abs(other.at - y(last)) < 11);
    if (near === undefined) taken.push({ name, at: y(last), others: 0 });
    else near.others++;
  }
  return taken.map(({ name, at, others }) => {
    const more = others === 0 ? "" : ` +${others}`;
    const room = longestName - more.length;
    const shown = name.length > room ? `${name.slice(0, room - 1)}…` : name;
    return html`<text class="name" x="${px(x(layers - 1) + 5)}" y="${px(at + 4)}">${shown}${more}</text>`;
  });
}

const px = (value: number) => Number(value.toFixed(1));
