import { axes, type Plot } from "./axes.js";
import { type Html, html } from "./html.js";
import { extent, linearScale, logScale } from "./scale.js";
import { type Picture, palette, px } from "./svg.js";

export interface Line {
  name: string;
  /** Points that are not finite, or not positive on a logarithmic axis, are left out. */
  points: readonly (readonly [x: number, y: number])[];
  /** As CSS writes it, or a place in the palette. Default: the line's own place. */
  color?: string | number;
  /** Drawn dashed: published figures. */
  dashed?: boolean;
}

export interface LineChartOptions {
  title: string;
  xLabel: string;
  yLabel?: string;
  logX?: boolean;
  logY?: boolean;
  /** Ends of the y axis; from the points by default. What lies beyond is drawn at the edge. */
  yRange?: readonly [number, number];
  /** x counts something: no ticks between whole numbers. */
  wholeX?: boolean;
  /** Names at the ends of the lines, or in a list below; left out, a line tells its name when pointed at. */
  names?: "ends" | "below";
}

const [width, height] = [380, 230];
const [belowHeight, endsWidth] = [16, 98];

/** Lines over one x axis. */
export function lineChart(lines: readonly Line[], options: LineChartOptions): Picture {
  const { logX = false, logY = false, wholeX = false, names } = options;
  const plot: Plot = {
    left: 48,
    right: width - 14 - (names === "ends" ? endsWidth : 0),
    top: 14,
    bottom: height - 40,
  };
  const drawn = lines.map((line, i) => ({
    ...line,
    color: colorOf(line.color ?? i),
    points: line.points.filter(([x, y]) => usable(x, logX) && usable(y, logY)),
  }));
  const points = drawn.flatMap((line) => line.points);
  const scaleOf = (log: boolean) => (log ? logScale : linearScale);
  const x = scaleOf(logX)(extent(points.map(([x]) => x)) ?? [0.5, 1], [plot.left, plot.right]);
  const y = scaleOf(logY)(options.yRange ?? extent(points.map(([, y]) => y)) ?? [0.5, 1], [plot.bottom, plot.top]);
  const shownX = wholeX ? Object.assign((value: number) => x(value), { ticks: x.ticks.filter(Number.isInteger) }) : x;
  const place = ([a, b]: readonly [number, number]) =>
    [px(x(a)), px(Math.min(plot.bottom, Math.max(plot.top, y(b))))] as const;
  const paths = drawn.map(
    ({ name, color, dashed, points }) =>
      points.length > 0 &&
      html`<polyline class="line" stroke="${color}"${dashed === true && html` stroke-dasharray="5 4"`} points="${points.map((point) => place(point).join(",")).join(" ")}"><title>${name}</title></polyline>`,
  );
  const ends = drawn.flatMap(({ name, points }) =>
    points.length === 0 ? [] : [{ name, points: points.length, at: place(points.at(-1)!) }],
  );
  return {
    width,
    height: height + (names === "below" ? 8 + belowHeight * lines.length : 0),
    title: options.title,
    body: html`${axes(plot, shownX, y, options)}
${paths}
${names === "ends" && namesAtEnds(ends)}
${
  names === "below" &&
  drawn.map(({ name, color, dashed }, i) => {
    const at = height + 8 + belowHeight * i;
    return html`<path class="line" stroke="${color}"${dashed === true && html` stroke-dasharray="5 4"`} d="M${plot.left} ${at}h24"/><text x="${plot.left + 30}" y="${at + 4}">${name}</text>`;
  })
}`,
  };
}

const colorOf = (color: string | number) => (typeof color === "string" ? color : palette[color % palette.length]);

const usable = (value: number, log: boolean) => Number.isFinite(value) && (!log || value > 0);

const longestName = 16;

/** Names of the lines that reach farthest to the right; of those that end together the first stands for the others. */
function namesAtEnds(ends: readonly { name: string; at: readonly [number, number] }[]): Html[] {
  const farthest = Math.max(...ends.map(({ at: [x] }) => x));
  const taken: { name: string; at: readonly [number, number]; others: number }[] = [];
  for (const { name, at } of ends) {
    if (at[0] < farthest) continue;
    const near = taken.find((other) => Math.abs(other.at[1] - at[1]) < 11);
    if (near === undefined) taken.push({ name, at, others: 0 });
    else near.others++;
  }
  return taken.map(({ name, at: [x, y], others }) => {
    const more = others === 0 ? "" : ` +${others}`;
    const room = longestName - more.length;
    const shown = name.length > room ? `${name.slice(0, room - 1)}…` : name;
    return html`<text class="name" x="${px(x + 5)}" y="${px(y + 4)}">${shown}${more}</text>`;
  });
}
