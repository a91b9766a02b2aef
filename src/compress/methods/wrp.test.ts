import { describe, expect, it } from "vitest";
import { countZeros, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { Random } from "../../core/index.js";
import { InputStatistics } from "../statistics.js";
import { method as wanda } from "./wanda.js";
import { method } from "./wrp.js";

const layer = syntheticLayer(31, 64, 128);
const statistics = statisticsOf(layer);
const twoFour = { type: "nm", keep: 2, group: 4 } as const;
const at = (alpha: number) => method.prune(layer, statistics, twoFour, method.options.parse({ alpha }));
const plain = wanda.prune(layer, statistics, twoFour, { alphaSearch: false });
const population = (mask: Uint8Array) => mask.length - countZeros(mask);

describe("wrp", () => {
  it("α = 0 is plain 2:4, α = 1 gives every weight back", () => {
    expect(at(0).mask).toEqual(plain.mask);
    expect(population(at(0).recovered!)).toBe(0);
    expect(at(1).weight).toEqual(layer.weight);
    expect(population(at(1).recovered!)).toBe(layer.weight.length / 2);
  });

  it("the two supports are disjoint and the first is 2:4; the second grows with α", () => {
    let last = -1;
    for (const alpha of [0, 0.1, 0.25, 0.5, 0.8, 1]) {
      const { mask, recovered } = at(alpha);
      const first = mask.map((keep, i) => keep - recovered![i]);
      expect(first).toEqual(plain.mask);
      expect(population(recovered!)).toBeGreaterThanOrEqual(last);
      last = population(recovered!);
    }
  });

  it("recovers the highest scores of a row only", () => {
    const scores = wanda.score!(layer, statistics, { alphaSearch: false });
    const { recovered } = at(0.25);
    for (let r = 0; r < layer.rows; r++) {
      const row = Array.from(scores.subarray(r * 128, (r + 1) * 128));
      const top = [...row].sort((a, b) => b - a)[31];
      row.forEach((score, c) => {
        expect(recovered![r * 128 + c]).toBe(score >= top && plain.mask[r * 128 + c] === 0 ? 1 : 0);
      });
    }
  });

  it("for independent scores the recovered share is α³ − α⁴/2 to 0.1 percentage points", () => {
    const random = new Random(7);
    const [rows, cols] = [256, 512];
    const weight = Float32Array.from({ length: rows * cols }, () => random.normal());
    const even = new InputStatistics(cols, 1, { columnSquares: new Float64Array(cols).fill(1) });
    for (const alpha of [0.1, 0.25, 0.4]) {
      const { recovered } = method.prune({ weight, rows, cols }, even, twoFour, method.options.parse({ alpha }));
      const share = population(recovered!) / weight.length;
      expect(Math.abs(share - (alpha ** 3 - alpha ** 4 / 2))).toBeLessThan(0.001);
    }
  });

  it("blocks: in every row of blocks, the ones with the most pruned score, and only pruned entries of them", () => {
    const options = method.options.parse({ recover: "blocks", blockSize: 16, blocksPerRow: 2 });
    const { mask, recovered } = method.prune(layer, statistics, twoFour, options);
    const scores = wanda.score!(layer, statistics, { alphaSearch: false });
    for (let br = 0; br < 4; br++) {
      const blocks = Array.from({ length: 8 }, (_, bc) => {
        const at = Array.from({ length: 256 }, (_, i) => (br * 16 + (i >> 4)) * 128 + bc * 16 + (i & 15));
        const pruned = at.filter((i) => plain.mask[i] === 0);
        return { sum: pruned.reduce((s, i) => s + scores[i], 0), states: new Set(pruned.map((i) => recovered![i])) };
      });
      const back = blocks.filter((b) => b.states.has(1));
      expect(back).toHaveLength(2);
      for (const b of blocks) expect(b.states.size).toBe(1);
      const others = blocks.filter((b) => !back.includes(b));
      expect(Math.min(...back.map((b) => b.sum))).toBeGreaterThan(Math.max(...others.map((b) => b.sum)));
    }
    expect(mask.every((keep, i) => keep === plain.mask[i] + recovered![i])).toBe(true);
    expect(method.problems!({ rows: 60, cols: 128 }, twoFour, options)).toHaveLength(1);
  });

  it("never recovers what was pruned before", () => {
    const mask = Uint8Array.from(layer.weight, (_, i) => (i % 3 === 0 ? 0 : 1));
    const options = method.options.parse({ alpha: 1 });
    const { weight, recovered } = method.prune({ ...layer, mask }, statistics, twoFour, options);
    recovered!.forEach((back, i) => {
      if (mask[i] === 0) expect(back).toBe(0);
    });
    expect(weight).toEqual(layer.weight.map((w, i) => (i % 3 === 0 ? 0 : w)));
  });
});
