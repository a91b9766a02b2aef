/** Maps numbers of a domain to pixels of a range. */
export interface Scale {
  (value: number): number;
  readonly ticks: readonly number[];
}

/** @param domain smallest and largest value; widened where they are one */
export function linearScale([low, high]: readonly [number, number], range: readonly [number, number]): Scale {
  const [from, to] = low === high ? [low * 0.9 - 0.5, high * 1.1 + 0.5] : [low, high];
  const at = (value: number) => range[0] + ((value - from) / (to - from)) * (range[1] - range[0]);
  return Object.assign(at, { ticks: roundTicks(from, to) });
}

/** @param domain of positive values */
export function logScale([low, high]: readonly [number, number], range: readonly [number, number]): Scale {
  const [from, to] = low === high ? [low / 1.5, high * 1.5] : [low, high];
  const length = Math.log(to / from);
  const at = (value: number) => range[0] + (Math.log(value / from) / length) * (range[1] - range[0]);
  const all = [1, 1.5, 2, 3, 5, 7];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power++) {
    for (const step of all) {
      const tick = step * 10 ** power;
      if (tick >= from && tick <= to) ticks.push(tick);
    }
  }
  // Over many decades only the powers of ten have room.
  const powers = ticks.filter((tick) => Number.isInteger(Math.round(Math.log10(tick) * 1e9) / 1e9));
  return Object.assign(at, { ticks: ticks.length > 8 && powers.length > 1 ? powers : ticks });
}

/** About five round numbers. */
function roundTicks(from: number, to: number): number[] {
  const rough = (to - from) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const ticks: number[] = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to + step / 1e6; tick += step) {
    ticks.push(Number(tick.toPrecision(12)));
  }
  return ticks;
}

/** Three significant digits, no exponent where it can be helped. */
export function short(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toPrecision(2);
  return String(Number(value.toPrecision(3)));
}
