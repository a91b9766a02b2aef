/** Maps numbers of a domain to pixels of a range. */
export interface Scale {
  (value: number): number;
  readonly ticks: readonly number[];
}

/** Smallest and largest of the values; undefined of none. */
export function extent(values: readonly number[]): [number, number] | undefined {
  if (values.length === 0) return undefined;
  return values.reduce<[number, number]>(
    ([low, high], v) => [Math.min(low, v), Math.max(high, v)],
    [Infinity, -Infinity],
  );
}

/** Values closer together than this share of their size are one to a picture, and to the arithmetic of ticks. */
const narrowest = 1e-9;

const isNarrow = (low: number, high: number) =>
  !(high - low > narrowest * Math.max(Math.abs(low), Math.abs(high), 1e-290));

/** @param domain smallest and largest value, finite; widened where they are one */
export function linearScale([low, high]: readonly [number, number], range: readonly [number, number]): Scale {
  const room = Math.abs(high) * 0.1 + 0.5;
  const [from, to] = isNarrow(low, high) ? [low - room, Math.min(high + room, Number.MAX_VALUE)] : [low, high];
  // Halves first: the difference of two finite numbers need not be finite.
  const span = to / 2 - from / 2;
  const at = (value: number) => range[0] + ((value / 2 - from / 2) / span) * (range[1] - range[0]);
  return Object.assign(at, { ticks: roundTicks(from, to) });
}

const logSteps = [1, 1.5, 2, 3, 5, 7];
const mostTicks = 8;

/** @param domain of positive values; an end that room around it made infinite is the largest number */
export function logScale([low, high]: readonly [number, number], range: readonly [number, number]): Scale {
  const [from, end] = isNarrow(low, high) ? [low / 1.5, high * 1.5] : [low, high];
  const to = Math.min(end, Number.MAX_VALUE);
  const length = Math.log(to) - Math.log(from);
  const at = (value: number) => range[0] + ((Math.log(value) - Math.log(from)) / length) * (range[1] - range[0]);
  const decades: number[] = [];
  // A double has some 600 decades, so this ends whatever the domain.
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++) decades.push(power);
  const within = (tick: number) => tick >= from && tick <= to;
  const ticks = decades.flatMap((power) => logSteps.map((step) => step * 10 ** power)).filter(within);
  // Over many decades only the powers of ten have room.
  const powers = decades.map((power) => 10 ** power).filter(within);
  const few = ticks.length > mostTicks && powers.length > 1 ? powers : ticks;
  const every = Math.ceil(few.length / (2 * mostTicks));
  return Object.assign(at, { ticks: few.filter((_, i) => i % every === 0) });
}

/** About five round numbers, found by counting: adding steps to a large number may not change it. */
function roundTicks(from: number, to: number): number[] {
  const rough = to / 5 - from / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  if (!(step > 0) || !Number.isFinite(step)) return [];
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.min(20, Math.floor(to / step + 1e-6) - first + 1);
  return Array.from({ length: Math.max(0, count) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Three significant digits, no exponent where it can be helped. */
export function short(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toPrecision(2);
  return String(Number(value.toPrecision(3)));
}
