import { describe, expect, it } from "vitest";
import { mean, outputError, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { dampedHessian } from "../hessian.js";
import { InputStatistics, quantizeMethods } from "../index.js";
import { method as awq } from "./awq.js";
import { divideColumns, multiplyColumns } from "./fold.js";
import { method as gptq } from "./gptq.js";
import { method as rtn } from "./rtn.js";

const layer = syntheticLayer(71, 24, 64, { outliers: true });
const statistics = statisticsOf(layer);
const rtnOptions = (change: object = {}) => rtn.options.parse(change);
const gptqOptions = (change: object = {}) => gptq.options.parse(change);
const awqOptions = (change: object = {}) => awq.options.parse(change);

describe.each(Object.entries(quantizeMethods))("quantisation method %s", async (id, load) => {
  const { method } = await load();
  const options = method.options.parse({});

  it("is filed under its id; its weights are what its codes say", () => {
    expect(method.id).toBe(id);
    const before = layer.weight.slice();
    const result = method.quantize(layer, statistics, options);
    expect(layer.weight).toEqual(before);
    const { weight, codes, scales, zeros, groupSize, inputScales } = result;
    const outliers = new Set(result.outlierColumns);
    const groups = Math.ceil(64 / groupSize);
    expect(scales).toHaveLength(24 * groups);
    weight.forEach((w, i) => {
      const group = Math.floor(i / 64) * groups + Math.floor((i % 64) / groupSize);
      const value = Math.fround(scales[group] * (codes[i] - zeros[group])) / (inputScales?.[i % 64] ?? 1);
      expect(w).toBe(outliers.has(i % 64) ? layer.weight[i] : Math.fround(value));
    });
    expect(method.quantize(layer, statistics, options).codes).toEqual(codes);
  });

  it("keeps the zeros of a pruned layer", () => {
    const mask = Uint8Array.from(layer.weight, (_, i) => (i * 7) % 2);
    const weight = layer.weight.map((w, i) => (mask[i] === 1 ? w : 0));
    const result = method.quantize({ ...layer, weight, mask }, statistics, options);
    result.weight.forEach((w, i) => {
      if (mask[i] === 0) expect(w).toBe(0);
    });
  });
});

describe("rtn", () => {
  it("at 8 bits is finer than at 4, at 4 than at 3, in smaller groups than in larger ones", () => {
    const error = (change: object) => outputError(layer, rtn.quantize(layer, statistics, rtnOptions(change)).weight);
    expect(error({ bits: 8 })).toBeLessThan(error({ bits: 4 }));
    expect(error({ bits: 4 })).toBeLessThan(error({ bits: 3 }));
    expect(error({ groupSize: 16 })).toBeLessThan(error({ groupSize: 0 }));
  });
});

describe("gptq", () => {
  it.each([{}, { actOrder: true }, { groupSize: 0, scheme: "asymmetric", blockSize: 16 }])(
    "the reported loss is ½ tr(D·H·Dᵀ): %o",
    (change) => {
      const { weight, loss } = gptq.quantize(layer, statistics, gptqOptions(change));
      const h = dampedHessian(statistics, 0.01);
      let total = 0;
      for (let r = 0; r < 24; r++) {
        const d = Float64Array.from({ length: 64 }, (_, c) => weight[r * 64 + c] - layer.weight[r * 64 + c]);
        for (let i = 0; i < 64; i++) for (let j = 0; j < 64; j++) total += (d[i] * h[i * 64 + j] * d[j]) / 2;
      }
      expect(loss! / total).toBeCloseTo(1, 4);
    },
  );

  it("with a diagonal Hessian it is round to nearest, in any order", () => {
    const gram = Float64Array.from({ length: 64 * 64 }, (_, i) => (i % 65 === 0 ? 1 + (i % 11) : 0));
    const diagonal = new InputStatistics(64, 1, { gram });
    const nearest = rtn.quantize(layer, diagonal, rtnOptions());
    for (const actOrder of [false, true]) {
      const result = gptq.quantize(layer, diagonal, gptqOptions({ actOrder, damping: 0 }));
      expect(result.codes).toEqual(nearest.codes);
      expect(result.scales).toEqual(nearest.scales);
    }
  });

  it("order by energy is the plain sweep over columns sorted by descending Σ x²", () => {
    const energy = statistics.get("columnSquares");
    const order = Array.from(energy.keys()).sort((a, b) => energy[b] - energy[a]);
    const permute = <A extends Float32Array>(values: A, out: A) =>
      out.map((_, i) => values[Math.floor(i / 64) * 64 + order[i % 64]]);
    const sorted = {
      ...layer,
      weight: permute(layer.weight, new Float32Array(layer.weight.length)),
      inputs: permute(layer.inputs, new Float32Array(layer.inputs.length)),
    };
    const plain = gptq.quantize(sorted, statisticsOf(sorted), gptqOptions({ groupSize: 0 }));
    const ordered = gptq.quantize(layer, statistics, gptqOptions({ groupSize: 0, actOrder: true }));
    expect(permute(ordered.weight, new Float32Array(ordered.weight.length))).toEqual(plain.weight);
  });

  it("on average over correlated layers it beats round to nearest at 4 and 3 bits", () => {
    const errors = { rtn4: [] as number[], gptq4: [] as number[], rtn3: [] as number[], gptq3: [] as number[] };
    for (let seed = 300; seed < 320; seed++) {
      const random = syntheticLayer(seed, 16, 64);
      const of = statisticsOf(random);
      for (const bits of [4, 3] as const) {
        errors[`rtn${bits}`].push(outputError(random, rtn.quantize(random, of, rtnOptions({ bits })).weight));
        errors[`gptq${bits}`].push(outputError(random, gptq.quantize(random, of, gptqOptions({ bits })).weight));
      }
    }
    expect(mean(errors.gptq4)).toBeLessThan(mean(errors.rtn4));
    expect(mean(errors.gptq3)).toBeLessThan(mean(errors.rtn3));
  });
});

describe("awq", () => {
  const noClip = { clip: false, bits: 3 };

  it("factors are finite and centred: largest · smallest = 1", () => {
    const factors = awq.factors!([layer], statistics, awqOptions());
    expect(factors.every((s) => s > 0 && Number.isFinite(s))).toBe(true);
    expect(Math.max(...factors) * Math.min(...factors)).toBeCloseTo(1, 5);
  });

  it("one ratio is plain rounding, more never lose more, and outlier channels gain", () => {
    const error = (change: object) =>
      outputError(layer, awq.quantize(layer, statistics, awqOptions({ ...noClip, ...change })).weight);
    const nearest = outputError(layer, rtn.quantize(layer, statistics, rtnOptions({ bits: 3 })).weight);
    expect(error({ ratios: 1 })).toBeCloseTo(nearest, 10);
    expect(error({ ratios: 20 })).toBeLessThan(0.9 * nearest);
  });

  it("shared factors are chosen for the sum of all consumers", () => {
    const other = { ...syntheticLayer(72, 40, 64), inputs: layer.inputs };
    const options = awqOptions(noClip);
    const shared = awq.factors!([layer, other], statistics, options);
    const total = (factors: Float32Array) =>
      [layer, other].reduce((sum, l) => sum + outputError(l, awq.quantize(l, statistics, options, factors).weight), 0);
    expect(total(shared)).toBeLessThanOrEqual(total(awq.factors!([layer], statistics, options)));
    expect(total(shared)).toBeLessThanOrEqual(total(awq.factors!([other], statistics, options)));
    expect(awq.quantize(layer, statistics, options, shared).inputScales).toBe(shared);
    // Large weights in the channels with the smallest inputs want another ratio, but what is tiny does not count.
    const absMean = statistics.get("columnAbsMean");
    const contrary = { ...layer, weight: layer.weight.map((w, i) => (1e-4 * w) / absMean[i % 64] ** 3) };
    const alone = awq.factors!([layer], statistics, options);
    expect(awq.factors!([contrary], statistics, options)).not.toEqual(alone);
    expect(awq.factors!([layer, contrary], statistics, options)).toEqual(alone);
    expect(awq.factors!([contrary, layer], statistics, options)).toEqual(alone);
  });

  it("clipping lowers the error of groups by themselves", () => {
    const gram = Float64Array.from(statistics.get("gram"), (v, i) =>
      Math.floor((i % 64) / 32) === Math.floor(Math.floor(i / 64) / 32) ? v : 0,
    );
    const blockDiagonal = new InputStatistics(64, statistics.tokens, {
      gram,
      columnAbsMean: statistics.get("columnAbsMean"),
    });
    const of = (clip: boolean) => {
      const { weight } = awq.quantize(layer, blockDiagonal, awqOptions({ ...noClip, clip, ratios: 1 }));
      let total = 0;
      for (let r = 0; r < 24; r++) {
        const d = Float64Array.from({ length: 64 }, (_, c) => weight[r * 64 + c] - layer.weight[r * 64 + c]);
        for (let i = 0; i < 64; i++) for (let j = 0; j < 64; j++) total += d[i] * gram[i * 64 + j] * d[j];
      }
      return total;
    };
    expect(of(true)).toBeLessThan(0.98 * of(false));
  });

  it("folding factors into the columns and out again leaves the weights alone to f32 rounding", () => {
    const factors = awq.factors!([layer], statistics, awqOptions());
    divideColumns(multiplyColumns(layer.weight, factors), factors).forEach((w, i) => {
      expect(Math.abs(w - layer.weight[i])).toBeLessThanOrEqual(2 ** -22 * Math.abs(layer.weight[i]));
    });
  });
});
