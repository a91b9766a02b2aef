/** Plain SVG line charts. Colours follow Okabe and Ito, which colour-blind readers can tell apart. */

export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
  /** Drawn dashed: published figures. */
  dashed?: boolean;
  /** Series with the same number share a colour. Default: the series' own place. */
  color?: number;
}

export interface ChartOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  /** Logarithmic axes. */
  logX?: boolean;
  logY?: boolean;
  /** Ends of the y axis; from the points by default. */
  yRange?: readonly [number, number];
}

const colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const size = { width: 640, height: 400, left: 64, right: 16, top: 36, bottom: 52 };

export function lineChart(series: readonly Series[], options: ChartOptions): string {
  const points = series.flatMap(({ points }) => points).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const x = axis(
    points.map(([x]) => x),
    [size.left, size.width - size.right],
    options.logX,
  );
  const y = axis(options.yRange ?? points.map(([, y]) => y), [size.height - size.bottom, size.top], options.logY);
  const plotted = series.map((one, i) => line(one, i, x.place, y.place)).join("");
  const grid = [
    ...x.ticks.map((tick) => {
      const at = round(x.place(tick));
      return `<path d="M${at} ${size.top}V${size.height - size.bottom}" class="grid"/><text x="${at}" y="${size.height - size.bottom + 16}" text-anchor="middle">${label(tick)}</text>`;
    }),
    ...y.ticks.map((tick) => {
      const at = round(y.place(tick));
      return `<path d="M${size.left} ${at}H${size.width - size.right}" class="grid"/><text x="${size.left - 6}" y="${at + 4}" text-anchor="end">${label(tick)}</text>`;
    }),
  ].join("");
  const middleX = (size.left + size.width - size.right) / 2;
  const middleY = (size.top + size.height - size.bottom) / 2;
  return frame(
    size.width,
    size.height + 18 * series.length,
    options.title,
    `<text x="${middleX}" y="20" text-anchor="middle" font-weight="bold">${escapeXml(options.title)}</text>${grid}` +
      `<text x="${middleX}" y="${size.height - 14}" text-anchor="middle">${escapeXml(options.xLabel)}</text>` +
      `<text transform="translate(16 ${middleY}) rotate(-90)" text-anchor="middle">${escapeXml(options.yLabel)}</text>${plotted}`,
  );
}

function line({ name, points, dashed, color }: Series, i: number, x: Place, y: Place): string {
  const stroke = colors[(color ?? i) % colors.length];
  const dash = dashed ? ' stroke-dasharray="5 4"' : "";
  const path = points
    .filter(([px, py]) => Number.isFinite(px) && Number.isFinite(py))
    .map(([px, py], k) => `${k === 0 ? "M" : "L"}${round(x(px))} ${round(y(py))}`)
    .join("");
  const legendY = size.height + 18 * i;
  return (
    `<path d="${path}" fill="none" stroke="${stroke}" stroke-width="2"${dash}/>` +
    `<path d="M${size.left} ${legendY}h28" stroke="${stroke}" stroke-width="2"${dash}/>` +
    `<text x="${size.left + 36}" y="${legendY + 4}">${escapeXml(name)}</text>`
  );
}

export function frame(width: number, height: number, title: string, body: string): string {
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">` +
    `<title>${escapeXml(title)}</title><style>.grid{stroke:#ddd;fill:none}</style><rect width="${width}" height="${height}" fill="#fff"/>${body}</svg>\n`
  );
}

type Place = (value: number) => number;

function axis(values: readonly number[], [from, to]: readonly [number, number], log = false) {
  const scale = log ? Math.log10 : (v: number) => v;
  const usable = log ? values.filter((v) => v > 0) : values;
  let low = usable.length === 0 ? 0 : Math.min(...usable.map(scale));
  let high = usable.length === 0 ? 1 : Math.max(...usable.map(scale));
  if (high - low < 1e-12) {
    low -= 0.5;
    high += 0.5;
  }
  const place: Place = (value) =>
    from + ((Math.min(high, Math.max(low, scale(value))) - low) / (high - low)) * (to - from);
  return { place, ticks: log ? powersOfTen(low, high) : steps(low, high) };
}

/** Round numbers about a fifth of the range apart. */
function steps(low: number, high: number): number[] {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough)!;
  const ticks: number[] = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return ticks;
}

function powersOfTen(low: number, high: number): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const m of [1, 2, 5]) {
      const value = Math.log10(m) + power;
      if (value >= low - 1e-9 && value <= high + 1e-9) ticks.push(m * 10 ** power);
    }
  }
  return ticks;
}

const label = (value: number) => String(Number(value.toPrecision(4)));
const round = (value: number) => Math.round(value * 10) / 10;
export const escapeXml = (text: string): string =>
  text.replace(/[<>&"]/g, (c) => ({ "<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;" })[c]!);
