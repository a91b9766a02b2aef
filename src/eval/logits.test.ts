import { describe, expect, test } from "vitest";
import { Random } from "../core/index.js";
import { DivergenceSum } from "./divergence.js";
import { rowsPerChunk, withLogSumExp } from "./logits.js";
import { negativeLogLikelihood } from "./perplexity.js";

/** Two rows of 3 tokens, each padded to 4 columns with something large. */
const logits = (...rows: number[][]) => withLogSumExp(Float32Array.from(rows.flatMap((row) => [...row, 1000])), 4, 3);

describe("log-softmax", () => {
  test("gives the NLL of targets, without the padding", () => {
    // softmax of (ln 1, ln 2, ln 5) is (1, 2, 5) / 8, and a shift of 700 changes nothing.
    const shifted = [Math.log(1) + 700, Math.log(2) + 700, Math.log(5) + 700];
    const rows = logits([Math.log(1), Math.log(2), Math.log(5)], shifted);
    expect(negativeLogLikelihood(rows, Uint32Array.of(1, 1))).toBeCloseTo(2 * Math.log(4), 4);
    expect(negativeLogLikelihood(rows, Uint32Array.of(2, 0))).toBeCloseTo(Math.log(8 / 5) + Math.log(8), 4);
  });

  test("rows are looked at in pieces of bounded size", () => {
    expect(rowsPerChunk(8192)).toBe(1024);
    expect(rowsPerChunk(151_936)).toBe(55);
    expect(rowsPerChunk(2 ** 30)).toBe(1);
  });
});

describe("divergence", () => {
  test("is Σ p ln(p/q) and the share of equal first tokens", () => {
    const p = [0.5, 0.3, 0.2];
    const q = [0.2, 0.5, 0.3];
    const sum = new DivergenceSum();
    sum.add(logits(p.map(Math.log), [3, 1, 2]), logits(q.map(Math.log), [5, 3, 4]));
    const expected = p.reduce((total, share, i) => total + share * Math.log(share / q[i]), 0);
    // The second row is the first shifted by 2: the same distribution.
    expect(sum.result().klDivergence).toBeCloseTo(expected / 2, 6);
    expect(sum.result().top1Agreement).toBe(0.5);
  });

  test("is exactly 0 for equal logits and never negative", () => {
    const random = new Random(1);
    for (let trial = 0; trial < 200; trial++) {
      const values = Array.from({ length: 3 }, () => random.normal() * 20);
      const same = new DivergenceSum();
      same.add(logits(values), logits(values));
      expect(same.result()).toEqual({ klDivergence: 0, top1Agreement: 1 });
      const near = new DivergenceSum();
      near.add(logits(values), logits(values.map((value) => value + random.normal() * 1e-5)));
      expect(near.result().klDivergence).toBeGreaterThanOrEqual(0);
    }
  });

  test("puts the lowest of equal tokens first", () => {
    const sum = new DivergenceSum();
    sum.add(logits([1, 1, 0]), logits([1, 0, 0]));
    sum.add(logits([1, 1, 0]), logits([0, 1, 0]));
    expect(sum.result().top1Agreement).toBe(0.5);
  });
});
