import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import {
  drawReports,
  drawText,
  judge,
  promptLength,
  promptOf,
  responseLength,
  responseOf,
  textsOf,
  vocabulary,
  window,
  windowsFor,
  wordsBefore,
} from "../../src/train/experiments/distillationTask.js";
import { accumulatedError, writeResponses } from "../../src/train/experiments/distillationWriting.js";
import type { Predict } from "../../src/train/rollouts.js";

const random = new Random(4);
const reports = drawReports(random, 300);

describe("reports", () => {
  test("four texts each, of known words, that come back from their tokens; other reports have other texts", () => {
    for (const report of reports) {
      const texts = textsOf(report);
      expect(new Set(texts).size).toBe(4);
      expect(promptOf(report).every((id) => vocabulary[id] !== undefined)).toBe(true);
      for (const text of texts) {
        expect(responseOf(text)).toHaveLength(responseLength);
        expect(wordsBefore(responseOf(text))).toBe(text);
        expect(judge(report, text)).toEqual({ rougeL: 1, right: true });
      }
      expect(judge({ ...report, day: (report.day + 1) % 7 }, texts[0]).right).toBe(false);
    }
    expect(new Set(vocabulary).size).toBe(vocabulary.length);
  });

  test("the ways are taken 4, 3, 2 and 1 times of ten", () => {
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < 4000; i++) {
      const report = reports[i % reports.length];
      counts[textsOf(report).indexOf(drawText(report, random))]++;
    }
    for (const [way, share] of [0.4, 0.3, 0.2, 0.1].entries())
      expect(Math.abs(counts[way] / 4000 - share)).toBeLessThan(0.03);
  });

  test("a mistake costs Rouge-L a word: 2·P·R / (P + R) of what is left in order", () => {
    const [report] = reports;
    const words = textsOf(report)[0].split(" ");
    const wrong = words.with(3, "mistake").join(" ");
    expect(judge(report, wrong)).toEqual({
      rougeL: expect.closeTo((words.length - 1) / words.length, 10),
      right: false,
    });
  });

  test("the label of the prompt's last token is the first of the response; before it nothing is learnt", () => {
    const text = textsOf(reports[0])[1];
    const { tokens, labels } = windowsFor([reports[0]], [responseOf(text)]);
    expect([...tokens]).toEqual([...promptOf(reports[0]), ...responseOf(text)]);
    expect([...labels]).toEqual([...Array(promptLength - 1).fill(-1), ...responseOf(text), -1]);
  });
});

/** Says of every token the same: logits are the logarithms of these shares, by id. */
const always =
  (shares: Readonly<Record<number, number>>): Predict =>
  async ({ tokens }) =>
    Float32Array.from({ length: tokens.values.length * vocabulary.length }, (_, i) =>
      Math.log(shares[i % vocabulary.length] ?? 1e-9),
    );

describe("texts that models write", () => {
  test("likeliest tokens, or tokens as likely as predicted, until the end", async () => {
    const predict = always({ 0: 0.25, 7: 0.6, 9: 0.15 });
    const some = reports.slice(0, 5);
    for (const response of await writeResponses(predict, some, 2))
      expect([...response]).toEqual(Array(responseLength).fill(7));
    const drawn = await writeResponses(predict, reports, 16, new Random(1));
    const first = drawn.map(([token]) => token);
    for (const [token, share] of [
      [0, 0.25],
      [7, 0.6],
      [9, 0.15],
    ])
      expect(Math.abs(first.filter((one) => one === token).length / reports.length - share)).toBeLessThan(0.09);
    for (const response of drawn) {
      const end = response.indexOf(0);
      if (end >= 0) expect(response.subarray(end).every((token) => token === 0)).toBe(true);
    }
  });

  test("what it has written is what it goes on from", async () => {
    // Predicts the token's own number plus one.
    const counts: Predict = async ({ tokens }) => {
      const logits = new Float32Array(tokens.values.length * vocabulary.length);
      for (const [row, token] of tokens.values.entries()) logits[row * vocabulary.length + ((token + 1) % 100)] = 9;
      return logits;
    };
    const [response] = await writeResponses(counts, reports.slice(0, 1), 2);
    const last = promptOf(reports[0]).at(-1)!;
    expect([...response]).toEqual(Array.from({ length: responseLength }, (_, t) => last + t + 1));
    expect(window).toBe(promptLength + responseLength);
  });

  test("errors are KL(teacher ‖ student), added up until a text has ended", async () => {
    const [p, q] = [
      { 0: 0.5, 7: 0.5 },
      { 0: 0.1, 7: 0.9 },
    ];
    const kl = 0.5 * Math.log(0.5 / 0.1) + 0.5 * Math.log(0.5 / 0.9);
    const texts = [Int32Array.of(7, 7, 0), Int32Array.of(7, 0)].map((text) => {
      const whole = new Int32Array(responseLength);
      whole.set(text);
      return whole;
    });
    const sums = await accumulatedError(always(q), always(p), reports.slice(0, 2), texts, 4);
    const wanted = [1, 2, 2.5, ...Array(responseLength - 3).fill(2.5)].map((steps) => steps * kl);
    for (const [t, sum] of sums.entries()) expect(sum).toBeCloseTo(wanted[t], 5);
  });
});
