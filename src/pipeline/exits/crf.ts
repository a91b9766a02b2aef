import type { ExitLine, Looks } from "./looks.js";
import { minimise } from "./newton.js";

/** A chain over looks: transitions[before][now], where 1 is that a token may leave. */
export interface ExitChain extends ExitLine {
  transitions: [[number, number], [number, number]];
}

/** gap, top, bias, then the transitions 0→0, 0→1, 1→0, 1→1. */
const weights = 7;
/** By how much weights move where the curvature is measured. */
const step = 1e-4;

/**
 * A conditional random field over the looks at each token (Lafferty, McCallum & Pereira 2001): weights of the greatest conditional
 * likelihood of all labels, with ½ · Σ weights² against it. State 0 has no evidence of its own: only differences count.
 */
export function fitCrf(looks: Looks): ExitChain {
  const gradientAt = (at: Float64Array) => {
    const gradient = new Float64Array(weights);
    likelihood(looks, at, gradient);
    return gradient.map((expected, i) => expected + at[i]);
  };
  const [gap, top, bias, stay, begin, end, go] = minimise(
    {
      value: (at) => likelihood(looks, at) + at.reduce((sum, w) => sum + (w * w) / 2, 0),
      slope(at) {
        const curvature = new Float64Array(weights * weights);
        for (let i = 0; i < weights; i++) {
          const [above, below] = [step, -step].map((by) => gradientAt(at.map((w, j) => (i === j ? w + by : w))));
          for (let j = 0; j < weights; j++) {
            const half = (above[j] - below[j]) / (4 * step);
            curvature[weights * i + j] += half;
            curvature[weights * j + i] += half;
          }
        }
        return { gradient: gradientAt(at), curvature };
      },
    },
    new Float64Array(weights),
  );
  const transitions: ExitChain["transitions"] = [
    [stay, begin],
    [end, go],
  ];
  return { gap, top, bias, transitions };
}

/**
 * −ln of the conditional likelihood of all labels, by forward and backward messages that add up to 1.
 * @param gradient what is added its gradient to
 */
function likelihood(looks: Looks, at: Float64Array, gradient?: Float64Array): number {
  const { tokens, layers, gap, top, agrees } = looks;
  const moves = at.subarray(3).map(Math.exp);
  const length = layers.length;
  const [forward, backward] = [new Float64Array(2 * length), new Float64Array(2 * length)];
  const [seen, scale] = [new Float64Array(length), new Float64Array(length)];
  let sum = 0;
  for (let i = 0; i < tokens; i++) {
    for (let l = 0; l < length; l++) {
      const evidence = at[0] * gap[l][i] + at[1] * top[l][i] + at[2];
      seen[l] = Math.exp(evidence);
      const reach = (y: number) => (l === 0 ? 1 : forward[2 * l - 2] * moves[y] + forward[2 * l - 1] * moves[2 + y]);
      const [stays, leaves] = [reach(0), reach(1) * seen[l]];
      scale[l] = stays + leaves;
      forward[2 * l] = stays / scale[l];
      forward[2 * l + 1] = leaves / scale[l];
      const label = agrees[l][i];
      sum += Math.log(scale[l]) - label * evidence;
      if (l > 0) sum -= at[3 + 2 * agrees[l - 1][i] + label];
    }
    if (gradient === undefined) continue;
    backward.fill(1, 2 * length - 2);
    for (let l = length - 1; l >= 0; l--) {
      // What is expected of the look, and of the step to it, less what was.
      const surplus = forward[2 * l + 1] * backward[2 * l + 1] - agrees[l][i];
      gradient[0] += surplus * gap[l][i];
      gradient[1] += surplus * top[l][i];
      gradient[2] += surplus;
      if (l === 0) continue;
      for (let before = 0; before < 2; before++) {
        let behind = 0;
        for (let now = 0; now < 2; now++) {
          const onward = (moves[2 * before + now] * (now === 1 ? seen[l] : 1) * backward[2 * l + now]) / scale[l];
          behind += onward;
          gradient[3 + 2 * before + now] += forward[2 * l - 2 + before] * onward;
        }
        backward[2 * l - 2 + before] = behind;
      }
      gradient[3 + 2 * agrees[l - 1][i] + agrees[l][i]]--;
    }
  }
  return sum;
}
