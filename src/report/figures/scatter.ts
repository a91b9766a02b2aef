import { axes, type Plot } from "./axes.js";
import { type Html, html } from "./html.js";
import { extent, linearScale, logScale, short } from "./scale.js";
import { type Picture, px } from "./svg.js";

export interface Point {
  name: string;
  /** Points of a group share a colour. */
  group: string;
  x: number;
  y: number;
  /** Points of a group that have one are joined by a line, in this order. */
  level?: number;
}

export interface ScatterOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  /** Which end of x is better; less y always is. */
  better: "less" | "more";
  /** Drawn as a cross with a line through it. */
  reference?: Point;
}

const [width, height] = [380, 300];
const plot: Plot = { left: 48, right: width - 14, top: 14, bottom: height - 40 };

/** What is this many times the lowest would leave no room for the rest; it is drawn at the upper edge. */
const tallest = 5;

/** Points, the line of those that no other beats in both measures, and the reference. y is logarithmic. */
export function scatter(
  points: readonly Point[],
  colors: ReadonlyMap<string, string>,
  options: ScatterOptions,
): Picture {
  const { title, better, reference } = options;
  const all = reference === undefined ? points : [...points, reference];
  const x = linearScale(padded(all.map((point) => point.x)), [plot.left, plot.right]);
  const [low, high] = extent(all.map((point) => point.y)) ?? [1, 1];
  const within = all.filter((point) => point.y <= low * tallest);
  // Where most lie above there is no use in looking closer at the rest.
  const top = 2 * within.length > all.length ? Math.max(...within.map((point) => point.y)) : high;
  const y = logScale([low / 1.08, top * 1.3], [plot.bottom, plot.top]);
  const front = frontier(
    all.filter((point) => point.y <= top),
    better,
  );
  const path = front.map((point, i) => `${i === 0 ? "M" : "L"}${px(x(point.x))} ${px(y(point.y))}`).join("");
  return {
    width,
    height,
    title,
    body: html`${axes(plot, x, y, { ...options, gridX: true })}
<path class="front" d="${path}"/>
${series(points.filter((point) => point.y <= top)).map(
  (line) =>
    html`<polyline class="series" stroke="${colors.get(line[0].group)!}" points="${line.map((point) => `${px(x(point.x))},${px(y(point.y))}`).join(" ")}"/>`,
)}
${points.map((point) => {
  const title = html`<title>${point.name}: ${short(point.x)}, ${short(point.y)}</title>`;
  const color = colors.get(point.group)!;
  return point.y <= top
    ? html`<circle cx="${px(x(point.x))}" cy="${px(y(point.y))}" r="5" fill="${color}">${title}</circle>`
    : html`<path class="beyond" stroke="${color}" d="M${px(x(point.x) - 5)} ${plot.top + 8}h10l-5 -8z">${title}</path>`;
})}
${
  reference !== undefined &&
  html`<path class="reference" d="M${px(x(reference.x) - 6)} ${px(y(reference.y))}h12m-6 -6v12"><title>${reference.name}</title></path>`
}
${labels(reference === undefined || front.includes(reference) ? front : [reference, ...front], x, y)}`,
  };
}

/** Points of one group that differ in their level, in its order. */
function series(points: readonly Point[]): Point[][] {
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    if (point.level !== undefined) groups.set(point.group, [...(groups.get(point.group) ?? []), point]);
  }
  return [...groups.values()]
    .filter((line) => line.length > 1)
    .map((line) => line.toSorted((a, b) => a.level! - b.level!));
}

/** Names of the points on the front, each above its point unless the one before is in the way. */
function labels(front: readonly Point[], x: (value: number) => number, y: (value: number) => number): Html[] {
  const taken: { left: number; right: number; y: number }[] = [];
  return front.flatMap((point) => {
    const half = point.name.length * 3;
    const center = Math.min(Math.max(x(point.x), plot.left + half), plot.right - half);
    const place = { left: center - half, right: center + half, y: y(point.y) - 9 };
    if (
      taken.some((other) => Math.abs(other.y - place.y) < 12 && place.left < other.right && place.right > other.left)
    ) {
      return [];
    }
    taken.push(place);
    return [html`<text class="name" x="${px(center)}" y="${px(place.y)}" text-anchor="middle">${point.name}</text>`];
  });
}

/** The points that no other beats in both measures, in the order of x. */
export function frontier(points: readonly Point[], better: "less" | "more"): Point[] {
  const worse = better === "less" ? -1 : 1;
  const ordered = points.toSorted((a, b) => worse * (b.x - a.x) || a.y - b.y);
  const front: Point[] = [];
  for (const point of ordered) if (front.length === 0 || point.y < front.at(-1)!.y) front.push(point);
  return front;
}

function padded(values: readonly number[]): [number, number] {
  const [low, high] = extent(values) ?? [0, 1];
  const room = (high - low) * 0.06;
  return [low - room, high + room];
}
