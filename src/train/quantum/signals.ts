/** Signals that stand in for those of the paper, made by formula: a string tone and three grey pictures. */

/** Values in −1 … 1 on a grid of `size` points along every axis, which spans −1 … 1. */
export interface Signal {
  /** Of its coordinates. */
  dimensions: 1 | 2;
  size: number;
  /** [size], or [size][size] by rows. */
  values: Float64Array;
}

/** f64 [dimensions][points] */
export function gridOf({ dimensions, size }: Pick<Signal, "dimensions" | "size">): Float64Array {
  const at = (i: number) => (size === 1 ? 0 : -1 + (2 * i) / (size - 1));
  if (dimensions === 1) return Float64Array.from({ length: size }, (_, i) => at(i));
  const points = size * size;
  return Float64Array.from({ length: 2 * points }, (_, i) =>
    i < points ? at(Math.floor(i / size)) : at((i - points) % size),
  );
}

/** A string that is bowed: harmonics that fall off, vibrato, a second note that comes in. */
function tone(t: number): number {
  const vibrato = 0.15 * Math.sin(9 * t);
  let sum = 0;
  for (let h = 1; h <= 6; h++) {
    sum +=
      (Math.sin(2 * Math.PI * h * (5 * t + vibrato)) +
        0.6 * Math.sin(2 * Math.PI * h * 7.5 * t + h) * (t > 0 ? 1 : 0)) /
      h ** 1.5;
  }
  return sum * (0.6 + 0.4 * Math.cos(1.5 * t));
}

const smooth = (edge: number, width: number, x: number) => 1 / (1 + Math.exp(-(edge - x) / width));

/** Soft shapes, as a portrait has; hard edges and a flat background; rings and a gradient. */
const pictures: Readonly<Record<string, (y: number, x: number) => number>> = {
  portrait: (y, x) =>
    0.9 * smooth(0.45, 0.06, Math.hypot(x, y + 0.25)) +
    0.5 * smooth(0.8, 0.1, Math.hypot(x / 1.1, (y - 0.95) / 0.8)) -
    0.5 * smooth(0.09, 0.03, Math.hypot(x - 0.17, y + 0.3)) -
    0.5 * smooth(0.09, 0.03, Math.hypot(x + 0.17, y + 0.3)) +
    0.15 * Math.sin(5 * x + 3 * y),
  tripod: (y, x) =>
    0.6 -
    0.9 * smooth(0.3, 0.02, Math.max(Math.abs(x), Math.abs(y + 0.35))) -
    0.7 *
      smooth(0.05, 0.02, Math.min(Math.abs(x - 0.45 * (y + 0.1)), Math.abs(x + 0.45 * (y + 0.1)))) *
      smooth(0.05, 0.02, -y) -
    0.3 * smooth(0, 0.03, 0.7 - y),
  cup: (y, x) => {
    const r = Math.hypot(x, 1.2 * y);
    return (
      0.4 * x +
      smooth(0.75, 0.03, r) -
      1.1 * smooth(0.55, 0.03, r) +
      0.25 * smooth(0.55, 0.03, r) * Math.cos(14 * r + 2 * x)
    );
  },
};

const scaled = (values: Float64Array) => {
  const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return values.map((value) => value / most);
};

export const signalNames = ["tone", ...Object.keys(pictures)];

/** @param size points along every axis */
export function signalNamed(name: string, size: number): Signal {
  if (name === "tone") {
    return { dimensions: 1, size, values: scaled(gridOf({ dimensions: 1, size }).map(tone)) };
  }
  const grid = gridOf({ dimensions: 2, size });
  const points = size * size;
  return {
    dimensions: 2,
    size,
    values: scaled(Float64Array.from({ length: points }, (_, i) => pictures[name](grid[i], grid[points + i]))),
  };
}

/** A picture read between its points: at the nearest of them, or by lines. */
export function enlarged({ size, values }: Signal, to: number, kind: "nearest" | "bilinear"): Float64Array {
  const place = (i: number) => (i * (size - 1)) / (to - 1);
  return Float64Array.from({ length: to * to }, (_, i) => {
    const [y, x] = [place(Math.floor(i / to)), place(i % to)];
    if (kind === "nearest") return values[Math.round(y) * size + Math.round(x)];
    const [y0, x0] = [Math.min(size - 2, Math.floor(y)), Math.min(size - 2, Math.floor(x))];
    const at = (r: number, c: number) => values[(y0 + r) * size + x0 + c];
    const [v, u] = [y - y0, x - x0];
    return (1 - v) * ((1 - u) * at(0, 0) + u * at(0, 1)) + v * ((1 - u) * at(1, 0) + u * at(1, 1));
  });
}
