import { beforeAll, describe, expect, test, vi } from "vitest";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { matmul } from "../../src/train/engine/ops.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { miniLlmLoss } from "../../src/train/models/miniLlm.js";
import {
  drawnName,
  importanceName,
  judgementName,
  type MiniLlmOptions,
  miniLlmDefaults,
  returnName,
  writtenName,
} from "../../src/train/models/miniLlmOptions.js";
import { creditOf, writeTexts } from "../../src/train/rollouts.js";

// The engine's f64 asks for it, and Node has it from version 24 on.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});
beforeAll(() => startEngine("cpu"));

/** All texts of three tokens out of three, and models of them: logits for every beginning, of which there are 1 + 3 + 9. */
const [vocabSize, length, beginnings] = [3, 3, 13];
const texts = Array.from({ length: 27 }, (_, i) => [Math.floor(i / 9), Math.floor(i / 3) % 3, i % 3]);
/** The numbers of the beginnings of a text. */
const rowsOf = ([a, b]: readonly number[]) => [0, 1 + a, 4 + 3 * a + b];

const random = new Random(3);
const table = () => Float64Array.from({ length: beginnings * vocabSize }, () => random.normal());
const [theta, teacher] = [table(), table()];

function logShares(model: Float64Array, row: number): number[] {
  const logits = [...model.subarray(row * vocabSize, (row + 1) * vocabSize)];
  const norm = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
  return logits.map((logit) => logit - norm);
}
/** log probability of every token of a text. */
const logsOf = (model: Float64Array, text: readonly number[]) =>
  rowsOf(text).map((row, t) => logShares(model, row)[text[t]]);
const probability = (model: Float64Array, text: readonly number[]) =>
  Math.exp(logsOf(model, text).reduce((sum, log) => sum + log, 0));

/** KL(q ‖ p) of whole texts. */
const divergence = (model: Float64Array) =>
  texts.reduce((sum, text) => {
    const q = probability(model, text);
    return sum + q * Math.log(q / probability(teacher, text));
  }, 0);

/** Central differences. */
function gradientOf(f: (model: Float64Array) => number): number[] {
  const h = 1e-5;
  return Array.from(theta, (value, i) => (f(theta.with(i, value + h)) - f(theta.with(i, value - h))) / (2 * h));
}

/** What the estimator gives on average over all texts, drawn as the options say. */
async function expected(given: Partial<MiniLlmOptions>, change?: (returns: number[]) => number[]): Promise<number[]> {
  const options = { ...miniLlmDefaults, lengthNormalised: false, ...given };
  using objective = tracedObjective({
    parameters: [{ name: "theta", shape: [beginnings, vocabSize], layer: "", role: "dense" }],
    predict: ({ theta }) => theta,
    loss: ({ theta }, { chosen, drawn, importance, returns, teacher }) => ({
      loss: miniLlmLoss(matmul(chosen, theta), { drawn, importance, returns, teacher }, 1, options.singleStep),
    }),
  });
  // All texts in one batch: the loss is linear in the importances, which take how likely a text is to be drawn.
  const rows = texts.length * length;
  const all = { drawn: new Int32Array(rows), importance: new Float64Array(rows), returns: new Float64Array(rows) };
  const chosen = new Float64Array(rows * beginnings);
  const judgement = new Float64Array(rows * vocabSize);
  for (const [n, text] of texts.entries()) {
    const logs = { student: logsOf(theta, text), teacher: logsOf(teacher, text) };
    const credit = creditOf(logs, options);
    const { teacherMix: share } = options;
    const likely = logs.student.reduce(
      (product, q, t) => product * (share * Math.exp(logs.teacher[t]) + (1 - share) * Math.exp(q)),
      1,
    );
    all.drawn.set(text, n * length);
    all.importance.set(
      credit.importance.map((weight) => likely * weight),
      n * length,
    );
    all.returns.set(change?.(credit.returns) ?? credit.returns, n * length);
    for (const [t, row] of rowsOf(text).entries()) {
      chosen[(n * length + t) * beginnings + row] = 1;
      judgement.set(teacher.subarray(row * vocabSize, (row + 1) * vocabSize), (n * length + t) * vocabSize);
    }
  }
  const { gradients } = await objective.lossAndGradients(new Map([["theta", theta]]), {
    chosen: { shape: [rows, beginnings], values: chosen },
    drawn: { shape: [rows], values: all.drawn },
    importance: { shape: [rows], values: all.importance },
    returns: { shape: [rows], values: all.returns },
    teacher: { shape: [rows, vocabSize], values: judgement },
  });
  return [...gradients.get("theta")!];
}

const expectNear = (actual: readonly number[], wanted: readonly number[], tolerance = 1e-8) => {
  for (const [i, value] of wanted.entries()) expect(Math.abs(actual[i] - value), `${i}`).toBeLessThan(tolerance);
};

describe("the gradient of MiniLLM, over all 27 texts", () => {
  test.each([
    ["the student alone", { teacherMix: 0 }],
    ["the student alone, nothing exact", { teacherMix: 0, singleStep: false }],
    ["with the teacher's share, made up for by whole texts", { teacherMix: 0.2, importance: "text" as const }],
    ["the same, nothing exact", { teacherMix: 0.5, importance: "text" as const, singleStep: false }],
  ])("is that of the reverse KL of texts: %s", async (_, options) => {
    expectNear(await expected(options), gradientOf(divergence));
  });

  test("is near it where only the token drawn makes up for the teacher's share", async () => {
    const exact = gradientOf(divergence);
    const found = await expected({ teacherMix: 0.2 });
    const length = (v: readonly number[]) => Math.hypot(...v);
    const error = length(found.map((value, i) => value - exact[i])) / length(exact);
    expect(error).toBeGreaterThan(1e-3);
    expect(error).toBeLessThan(0.5);
  });

  test("of a return of 1 everywhere is 0: the score function has no mean", async () => {
    const none = new Array<number>(theta.length).fill(0);
    expectNear(await expected({ teacherMix: 0, singleStep: false }, (returns) => returns.map(() => 1)), none);
  });

  test("of the single steps is that of the KL of tokens behind beginnings that stay as likely", async () => {
    const frozen = Array.from({ length: beginnings }, (_, row) =>
      texts.reduce((sum, text) => (rowsOf(text).includes(row) ? sum + probability(theta, text) : sum), 0),
    );
    const ofTokens = (model: Float64Array) =>
      frozen.reduce((sum, weight, row) => {
        const [q, p] = [logShares(model, row), logShares(teacher, row)];
        return sum + weight * q.reduce((all, log, token) => all + Math.exp(log) * (log - p[token]), 0);
      }, 0);
    expectNear(await expected({ teacherMix: 0 }, (returns) => returns.map(() => 0)), gradientOf(ofTokens));
  });
});

test("returns are sums or means of what comes later", () => {
  const drawn = { student: [-1, -2, -3], teacher: [-2, -2.5, -1] };
  const of = (options: Partial<MiniLlmOptions>) => creditOf(drawn, { ...miniLlmDefaults, teacherMix: 0, ...options });
  expect(of({ lengthNormalised: false }).returns).toEqual([1.5, 2, 0]);
  expect(of({}).returns).toEqual([0.75, 2, 0]);
  expect(of({ singleStep: false, lengthNormalised: false }).returns).toEqual([0.5, 1.5, 2]);
  expect(of({}).importance).toEqual([1, 1, 1]);
});

test("texts are written behind the beginnings, as likely as the two together say", async () => {
  const window = 4;
  const logits =
    (q: readonly number[]) =>
    async ({ tokens }: { tokens?: { values: ArrayLike<number> } }) =>
      Float32Array.from({ length: tokens!.values.length * 2 }, (_, i) => Math.log(q[i % 2]));
  const writers = { student: logits([0.9, 0.1]), teacher: logits([0.1, 0.9]), vocabSize: 2, window };
  const count = 400;
  const tokens = { shape: [count * window], values: new Int32Array(count * window).fill(1) };
  const options = { ...miniLlmDefaults, length: 2, teacherMix: 0.25 };
  const batch = await writeTexts({ tokens, label: tokens }, writers as never, options, new Random(1));
  const written = [...batch[writtenName].values];
  expect(written.filter((_, i) => i % window < 2).every((token) => token === 1)).toBe(true);
  const drawn = [...batch[drawnName].values];
  // What is drawn stands at the token before.
  expect(drawn.filter((token, i) => (i % window < 1 || i % window > 2) && token !== -1)).toEqual([]);
  expect(drawn.filter((_, i) => i % window === 1)).toEqual(written.filter((_, i) => i % window === 2));
  const zeros = written.filter((token, i) => i % window >= 2 && token === 0).length / (2 * count);
  // 0.75 · 0.9 + 0.25 · 0.1
  expect(Math.abs(zeros - 0.7)).toBeLessThan(0.05);
  expect(batch[importanceName].values[0]).toBe(0);
  expect(batch[importanceName].values[1]).toBeCloseTo(written[2] === 0 ? 0.9 / 0.7 : 0.1 / 0.3, 5);
  expect(batch[returnName].values[2]).toBe(0);
  expect(batch[judgementName].shape).toEqual([count * window, 2]);
});
