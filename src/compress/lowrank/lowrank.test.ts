import { describe, expect, it } from "vitest";
import { countZeros, outputError, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { InputStatistics, lowRankMethods, pruneMethods } from "../index.js";
import { method as asvd } from "./asvd.js";
import { factorSize, productOf, rankForRatio, residualOf, shareRanks } from "./rank.js";
import { method as svd } from "./svd.js";
import { method as svdllm } from "./svdllm.js";

const layer = syntheticLayer(95, 30, 40, { outliers: true });
const statistics = statisticsOf(layer);
const squares = (values: ArrayLike<number>, from = 0) => {
  let sum = 0;
  for (let i = from; i < values.length; i++) sum += values[i] ** 2;
  return sum;
};
const errorAt = (spectrum: ReturnType<typeof svd.decompose>, rank: number) =>
  outputError(layer, productOf(layer, spectrum.factors(rank)));

describe.each(Object.entries(lowRankMethods))("low-rank method %s", async (id, load) => {
  const { method } = await load();
  const spectrum = method.decompose(layer, statistics, method.options.parse({}));

  it("is filed under its id; full rank gives the weights back", () => {
    expect(method.id).toBe(id);
    productOf(layer, spectrum.factors(30)).forEach((w, i) => {
      expect(w).toBeCloseTo(layer.weight[i], 5);
    });
  });

  it("factors have the shapes of their rank, which must be possible", () => {
    const { left, right } = spectrum.factors(7);
    expect([left.length, right.length]).toEqual([30 * 7, 7 * 40]);
    for (const rank of [0, 31, 1.5]) expect(() => spectrum.factors(rank)).toThrow(/not between 1 and 30/);
  });
});

describe("truncation", () => {
  it.each([1, 10, 25])("SVD: the squared weight error is the spectrum left out, rank %i", (rank) => {
    const spectrum = svd.decompose(layer, statistics, {});
    const product = productOf(layer, spectrum.factors(rank));
    const error = squares(product.map((w, i) => w - layer.weight[i]));
    expect(error / squares(spectrum.singularValues, rank)).toBeCloseTo(1, 5);
  });

  it.each([1, 10, 25])("SVD-LLM: the squared output error is the spectrum left out, rank %i", (rank) => {
    const spectrum = svdllm.decompose(layer, statistics, {});
    const tokens = layer.inputs.length / 40;
    expect((errorAt(spectrum, rank) * tokens) / squares(spectrum.singularValues, rank)).toBeCloseTo(1, 5);
  });

  it("SVD-LLM never has more output error than ASVD or SVD of the same rank", () => {
    const [best, scaled, plain] = [
      svdllm.decompose(layer, statistics, {}),
      asvd.decompose(layer, statistics, { alpha: 0.5 }),
      svd.decompose(layer, statistics, {}),
    ];
    for (const rank of [2, 8, 15, 28]) {
      expect(errorAt(best, rank)).toBeLessThan(errorAt(scaled, rank));
      expect(errorAt(best, rank)).toBeLessThan(errorAt(plain, rank));
    }
  });

  it("with uncorrelated inputs of equal size, or α = 0, all are plain SVD", () => {
    const gram = Float64Array.from({ length: 1600 }, (_, i) => (i % 41 === 0 ? 1 : 0));
    const even = new InputStatistics(40, 1, { gram, columnAbsMean: new Float64Array(40).fill(1) });
    const plain = productOf(layer, svd.decompose(layer, even, {}).factors(9));
    for (const other of [svdllm.decompose(layer, even, {}), asvd.decompose(layer, even, { alpha: 0 })]) {
      productOf(layer, other.factors(9)).forEach((w, i) => {
        expect(w).toBeCloseTo(plain[i], 5);
      });
    }
  });

  it("SVD-LLM takes a gram without full rank", () => {
    const few = { ...layer, inputs: layer.inputs.slice(0, 12 * 40) };
    const spectrum = svdllm.decompose(few, statisticsOf(few), {});
    const product = productOf(few, spectrum.factors(12));
    expect(outputError(few, product)).toBeLessThan(1e-6 * outputError(few, new Float32Array(1200)));
  });
});

describe("ranks", () => {
  it("by ratio: at most the share of numbers, aligned, at least one step", () => {
    const shape = { rows: 512, cols: 1408 };
    expect(rankForRatio(shape, 0.5)).toBe(187);
    expect(factorSize(shape, 187)).toBeLessThanOrEqual(0.5 * 512 * 1408);
    expect(rankForRatio(shape, 0.5, 32)).toBe(160);
    expect(rankForRatio(shape, 0.001, 32)).toBe(32);
    expect(rankForRatio(shape, 0.001)).toBe(1);
  });

  it("one budget: never exceeded, and no exchange of one component for another explains more", () => {
    const decay = (rate: number, length: number) => ({
      singularValues: Float64Array.from({ length }, (_, i) => rate ** i),
    });
    const matrices = [
      { shape: { rows: 40, cols: 60 }, spectrum: decay(0.7, 40) },
      { shape: { rows: 40, cols: 60 }, spectrum: decay(0.95, 40) },
      { shape: { rows: 20, cols: 20 }, spectrum: decay(0.99, 20) },
    ];
    const stored = (ranks: (number | "dense")[]) =>
      ranks.reduce<number>((sum, rank, i) => {
        const { shape } = matrices[i];
        return sum + (rank === "dense" ? shape.rows * shape.cols : factorSize(shape, rank));
      }, 0);
    const ranks = shareRanks(matrices, 3000);
    expect(stored(ranks)).toBeLessThanOrEqual(3000);
    expect(stored(ranks)).toBeGreaterThan(2800);
    expect(ranks[1]).toBeGreaterThan(ranks[0] as number);
    expect(shareRanks(matrices, 1e6)).toEqual(["dense", "dense", "dense"]);
  });

  it("a sparse residual on top of low rank lowers the error", async () => {
    const factors = svdllm.decompose(layer, statistics, {}).factors(8);
    const { method: wanda } = await pruneMethods.wanda();
    const residual = residualOf(layer, factors);
    const { weight, mask } = wanda.prune(
      residual,
      statistics,
      { type: "unstructured", sparsity: 0.8 },
      { alphaSearch: false },
    );
    expect(countZeros(mask)).toBe(30 * 32);
    const product = productOf(layer, factors);
    const together = product.map((w, i) => w + weight[i]);
    expect(outputError(layer, together)).toBeLessThan(outputError(layer, product));
  });
});
