import type { ExitLine, Looks } from "./looks.js";
import { minimise } from "./newton.js";

/** What a token on the wrong side counts, against the length of the line's normal. */
const cost = 1;

/**
 * A linear support vector machine on what was seen behind one layer: least ½(g² + t² + b²) + C · Σ max(0, 1 − y · (g · gap + t · top
 * + b))² with C = 1 and y = ±1, as LinearSVC of scikit-learn has it by default.
 * @param at index into `looks.layers`
 */
export function fitSvm({ tokens, gap: gaps, top: tops, agrees }: Looks, at: number): ExitLine {
  const [gap, top, label] = [gaps[at], tops[at], agrees[at]];
  const short = ([g, t, b]: Float64Array, i: number) => {
    const side = label[i] === 1 ? 1 : -1;
    return { side, by: 1 - side * (g * gap[i] + t * top[i] + b) };
  };
  const [g, t, bias] = minimise(
    {
      value(line) {
        let sum = 0;
        for (let i = 0; i < tokens; i++) sum += Math.max(0, short(line, i).by) ** 2;
        return cost * sum + line.reduce((half, w) => half + (w * w) / 2, 0);
      },
      slope(line) {
        const gradient = Float64Array.from(line);
        const curvature = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1);
        for (let i = 0; i < tokens; i++) {
          const { side, by } = short(line, i);
          if (by <= 0) continue;
          const x = [gap[i], top[i], 1];
          for (let r = 0; r < 3; r++) {
            gradient[r] -= 2 * cost * by * side * x[r];
            for (let c = 0; c < 3; c++) curvature[3 * r + c] += 2 * cost * x[r] * x[c];
          }
        }
        return { gradient, curvature };
      },
    },
    new Float64Array(3),
  );
  return { gap: g, top: t, bias };
}
