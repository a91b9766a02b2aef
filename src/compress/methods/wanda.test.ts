import { describe, expect, it } from "vitest";
import { countZeros, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { InputStatistics } from "../statistics.js";
import { method as magnitude } from "./magnitude.js";
import { method as wanda } from "./wanda.js";

const layer = syntheticLayer(11, 24, 64);
const statistics = statisticsOf(layer);
const plain = { alphaSearch: false };
const half = { type: "unstructured", sparsity: 0.5 } as const;
const twoFour = { type: "nm", keep: 2, group: 4 } as const;
const withSquares = (columnSquares: Float64Array) => new InputStatistics(64, 1, { columnSquares });

describe("wanda", () => {
  it("with equal input norms is magnitude per row", () => {
    const uniform = withSquares(new Float64Array(64).fill(4));
    const byMagnitude = magnitude.prune(layer, uniform, { ...half, scope: "row" }, { counting: "exact" });
    expect(wanda.prune(layer, uniform, half, plain).mask).toEqual(byMagnitude.mask);
  });

  it.each([0.29, 0.5, 0.8])("drops exactly ⌊C·s⌋ of every row, s = %f", (sparsity) => {
    const { mask } = wanda.prune(layer, statistics, { type: "unstructured", sparsity }, plain);
    for (let r = 0; r < layer.rows; r++) {
      expect(countZeros(mask, r * 64, (r + 1) * 64)).toBe(Math.floor(64 * sparsity));
    }
  });

  it("drops the two lowest scores of every four", () => {
    const { mask } = wanda.prune(layer, statistics, twoFour, plain);
    const norms = statistics.get("columnSquares").map(Math.sqrt);
    for (let at = 0; at < mask.length; at += 4) {
      const scores = [0, 1, 2, 3].map((i) => Math.abs(layer.weight[at + i]) * norms[(at + i) % 64]);
      const kept = [0, 1, 2, 3].filter((i) => mask[at + i] === 1);
      expect(kept).toHaveLength(2);
      const lost = [0, 1, 2, 3].filter((i) => mask[at + i] === 0).map((i) => scores[i]);
      expect(Math.max(...lost)).toBeLessThan(Math.min(...kept.map((i) => scores[i])));
    }
  });

  it("masks do not change with the scale of all inputs, of a row, or of a channel taken out of its column", () => {
    const { mask } = wanda.prune(layer, statistics, half, plain);
    const squares = statistics.get("columnSquares");
    expect(wanda.prune(layer, withSquares(squares.map((s) => s * 64)), half, plain).mask).toEqual(mask);
    const scaledRows = layer.weight.map((w, i) => w * 2 ** (Math.floor(i / 64) % 5));
    expect(wanda.prune({ ...layer, weight: scaledRows }, statistics, half, plain).mask).toEqual(mask);
    const scaledColumn = layer.weight.map((w, i) => (i % 64 === 9 ? w / 4 : w));
    const scaledSquares = withSquares(squares.map((s, c) => (c === 9 ? s * 16 : s)));
    expect(wanda.prune({ ...layer, weight: scaledColumn }, scaledSquares, half, plain).mask).toEqual(mask);
  });

  it("dead inputs go first", () => {
    const dead = withSquares(statistics.get("columnSquares").map((s, c) => (c % 8 === 3 ? 0 : s)));
    const { mask } = wanda.prune(layer, dead, { type: "unstructured", sparsity: 1 / 8 }, plain);
    mask.forEach((keep, i) => {
      expect(keep).toBe(i % 8 === 3 ? 0 : 1);
    });
  });

  it.each([0.3, 0.5, 0.7])("the search over α reaches sparsity %f to 0.001 with rows that differ", (sparsity) => {
    const wide = syntheticLayer(12, 128, 96);
    const { mask } = wanda.prune(wide, statisticsOf(wide), { type: "unstructured", sparsity }, { alphaSearch: true });
    expect(Math.abs(countZeros(mask) / mask.length - sparsity)).toBeLessThanOrEqual(0.001);
    const perRow = new Set(Array.from({ length: 128 }, (_, r) => countZeros(mask, r * 96, (r + 1) * 96)));
    expect(perRow.size).toBeGreaterThan(1);
  });

  it("in the search every row gives up at most the same share α of its score", () => {
    const { mask } = wanda.prune(layer, statistics, half, { alphaSearch: true });
    const scores = wanda.score!(layer, statistics, plain);
    const shares: number[] = [];
    const nextShares: number[] = [];
    for (let r = 0; r < layer.rows; r++) {
      const row = Array.from(scores.subarray(r * 64, (r + 1) * 64));
      const total = row.reduce((s, v) => s + v, 0);
      const lost = row.filter((_, c) => mask[r * 64 + c] === 0);
      const smallestKept = Math.min(...row.filter((_, c) => mask[r * 64 + c] === 1));
      const lostSum = lost.reduce((s, v) => s + v, 0);
      shares.push(lostSum / total);
      nextShares.push((lostSum + smallestKept) / total);
    }
    expect(Math.max(...shares)).toBeLessThan(Math.min(...nextShares));
  });

  it("refuses the search for other patterns and scopes it does not have", () => {
    expect(wanda.problems!(layer, twoFour, { alphaSearch: true })).toHaveLength(1);
    expect(() => wanda.prune(layer, statistics, twoFour, { alphaSearch: true })).toThrow(/alphaSearch/);
    expect(() => wanda.prune(layer, statistics, { ...half, scope: "global" }, plain)).toThrow(/not per global/);
  });
});
