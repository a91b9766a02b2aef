import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { fitCrf } from "../../src/pipeline/exits/crf.js";
import type { Looks } from "../../src/pipeline/exits/looks.js";
import { fitSvm } from "../../src/pipeline/exits/svm.js";

/** Tokens whose chance to agree rises with gap, top, layer, and that they agreed before. */
function drawnLooks(tokens: number, layers: number): Looks {
  const random = new Random(5);
  const looks = {
    tokens,
    layers: Array.from({ length: layers }, (_, l) => l + 1),
    top: Array.from({ length: layers }, () => new Float32Array(tokens)),
    gap: Array.from({ length: layers }, () => new Float32Array(tokens)),
    agrees: Array.from({ length: layers }, () => new Uint8Array(tokens)),
  };
  for (let i = 0; i < tokens; i++) {
    for (let l = 0; l < layers; l++) {
      const top = random.uniform();
      const gap = top * random.uniform();
      looks.top[l][i] = top;
      looks.gap[l][i] = gap;
      const before = l > 0 ? looks.agrees[l - 1][i] : 0;
      looks.agrees[l][i] = Number(random.uniform() < 0.1 + 0.4 * gap + 0.2 * top + 0.25 * before);
    }
  }
  return looks;
}

/** The least of a function near a point, where moving any weight either way raises it. */
function expectLeast(value: (at: readonly number[]) => number, at: readonly number[], step = 1e-3): void {
  const least = value(at);
  for (const i of at.keys()) {
    for (const by of [-step, step]) {
      const moved = value(at.map((weight, j) => (i === j ? weight + by : weight)));
      expect(moved, `weight ${i} moved by ${by}`).toBeGreaterThan(least);
    }
  }
}

test("the line of a support vector machine is where its loss is least", () => {
  const looks = drawnLooks(400, 2);
  const loss = ([g, t, b]: readonly number[]) => {
    let sum = (g * g + t * t + b * b) / 2;
    for (let i = 0; i < looks.tokens; i++) {
      const side = looks.agrees[1][i] === 1 ? 1 : -1;
      sum += Math.max(0, 1 - side * (g * looks.gap[1][i] + t * looks.top[1][i] + b)) ** 2;
    }
    return sum;
  };
  const { gap, top, bias } = fitSvm(looks, 1);
  expectLeast(loss, [gap, top, bias]);
  expect(gap).toBeGreaterThan(0);
});

describe("the chain of a conditional random field", () => {
  /** −ln of the likelihood of the labels, all ways through the chain counted one by one. */
  const loss = (looks: Looks, [gap, top, bias, ...moves]: readonly number[]) => {
    const { tokens, layers, agrees } = looks;
    let sum = [gap, top, bias, ...moves].reduce((half, weight) => half + weight ** 2 / 2, 0);
    for (let i = 0; i < tokens; i++) {
      const score = (labels: readonly number[]) =>
        labels.reduce(
          (total, y, l) =>
            total +
            y * (gap * looks.gap[l][i] + top * looks.top[l][i] + bias) +
            (l === 0 ? 0 : moves[2 * labels[l - 1] + y]),
          0,
        );
      let all = 0;
      for (let way = 0; way < 2 ** layers.length; way++) all += Math.exp(score(layers.map((_, l) => (way >> l) & 1)));
      sum += Math.log(all) - score(layers.map((_, l) => agrees[l][i]));
    }
    return sum;
  };

  test.each([1, 4])("has the weights of the greatest likelihood, %i looks", (layers) => {
    const looks = drawnLooks(250, layers);
    const { gap, top, bias, transitions } = fitCrf(looks);
    const weights = [gap, top, bias, ...transitions.flat()];
    expectLeast((at) => loss(looks, at), weights);
    // Labels that follow their like are told from those that do not.
    if (layers > 1)
      expect(transitions[1][1] - transitions[1][0]).toBeGreaterThan(transitions[0][1] - transitions[0][0]);
  });

  test("stands labels that are all alike", () => {
    const looks = drawnLooks(50, 3);
    for (const agrees of looks.agrees) agrees.fill(1);
    const { bias, transitions } = fitCrf(looks);
    expect([bias, ...transitions.flat()].every(Number.isFinite)).toBe(true);
    expect(bias).toBeGreaterThan(0);
  });
});
