import { describe, expect, it } from "vitest";
import { countZeros, mean, outputError, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import type { Layer } from "../contract.js";
import { dampedHessian, layerFactor } from "../hessian.js";
import { leastSquaresRow } from "../leastSquares.js";
import type { Pattern } from "../pattern.js";
import { InputStatistics } from "../statistics.js";
import { method as magnitude } from "./magnitude.js";
import { method } from "./sparsegpt.js";
import { method as wanda } from "./wanda.js";

const options = (change: Parameters<typeof method.options.parse>[0] = {}) => method.options.parse(change);
const layer = syntheticLayer(21, 20, 64);
const statistics = statisticsOf(layer);
const half: Pattern = { type: "unstructured", sparsity: 0.5 };
const twoFour: Pattern = { type: "nm", keep: 2, group: 4 };

/** ½ tr(D·H·Dᵀ). */
function quadraticLoss(a: Layer, weight: ArrayLike<number>, h: Float64Array): number {
  const { rows, cols } = a;
  let total = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < cols; i++) {
      const d = weight[r * cols + i] - a.weight[r * cols + i];
      for (let j = 0; j < cols; j++) total += d * h[i * cols + j] * (weight[r * cols + j] - a.weight[r * cols + j]);
    }
  }
  return total / 2;
}

describe("sparsegpt", () => {
  it.each<[string, Pattern, Parameters<typeof options>[0]]>([
    ["unstructured, one panel", half, {}],
    ["unstructured, narrow panels", half, { blockSize: 24 }],
    ["2:4", twoFour, { blockSize: 16 }],
    ["4:8", { type: "nm", keep: 4, group: 8 }, { blockSize: 16 }],
    ["2:4 by column", { ...twoFour, along: "column" }, {}],
    ["blocks", { type: "block", rows: 4, cols: 4, sparsity: 0.5 }, { blockSize: 32 }],
    ["columns", { type: "columns", sparsity: 0.25 }, {}],
    ["2:4 and 4 bits", twoFour, { blockSize: 32, quantize: { bits: 4, groupSize: 16, scheme: "asymmetric" } }],
  ])("the reported loss is ½ tr(D·H·Dᵀ): %s", (_name, pattern, change) => {
    const { weight, loss } = method.prune(layer, statistics, pattern, options(change));
    // Weights are rounded to f32 on the way out, hence not 1e-12.
    expect(loss! / quadraticLoss(layer, weight, dampedHessian(statistics, 0.01))).toBeCloseTo(1, 5);
  });

  it("counts zeros exactly per panel, and one more per panel by threshold", () => {
    const zeros = (change: object) => countZeros(method.prune(layer, statistics, half, options(change)).mask);
    expect(zeros({ blockSize: 16 })).toBe(640);
    expect(zeros({ blockSize: 16, counting: "threshold" })).toBe(644);
  });

  it("gives exact keep:group, zeros exactly +0, the mask it says", () => {
    for (const [keep, group] of [
      [2, 4],
      [4, 8],
      [1, 4],
    ]) {
      const { weight, mask } = method.prune(layer, statistics, { type: "nm", keep, group }, options({ blockSize: 32 }));
      for (let at = 0; at < mask.length; at += group) expect(countZeros(mask, at, at + group)).toBe(group - keep);
      weight.forEach((w, i) => {
        expect(Object.is(w, 0)).toBe(mask[i] === 0);
      });
    }
  });

  it("with a given mask the result does not depend on the panel width", () => {
    const { mask } = method.prune(layer, statistics, half, options());
    const none: Pattern = { type: "unstructured", sparsity: 0 };
    const of = (blockSize: number) => method.prune({ ...layer, mask }, statistics, none, options({ blockSize }));
    const wide = of(64);
    for (const narrow of [of(1), of(10), of(48)]) {
      expect(narrow.mask).toEqual(mask);
      narrow.weight.forEach((w, i) => {
        expect(w).toBeCloseTo(wide.weight[i], 6);
      });
    }
  });

  it("with uncorrelated inputs of equal size it is magnitude per panel, with no update", () => {
    const gram = Float64Array.from({ length: 64 * 64 }, (_, i) => (i % 65 === 0 ? 8 : 0));
    const identity = new InputStatistics(64, 8, { gram });
    const { weight, mask } = method.prune(layer, identity, half, options({ blockSize: 32 }));
    for (const start of [0, 32]) {
      const panel = Float32Array.from(
        { length: 20 * 32 },
        (_, i) => layer.weight[Math.floor(i / 32) * 64 + start + (i % 32)],
      );
      const expected = magnitude.prune({ weight: panel, rows: 20, cols: 32 }, identity, half, { counting: "exact" });
      expected.mask.forEach((keep, i) => {
        const at = Math.floor(i / 32) * 64 + start + (i % 32);
        expect(mask[at]).toBe(keep);
        expect(weight[at]).toBe(keep === 1 ? layer.weight[at] : 0);
      });
    }
  });

  it("exact least squares on the same mask is at least as good as the sweep and as zeroing", () => {
    const h = dampedHessian(statistics, 0.01);
    const { weight, mask } = method.prune(layer, statistics, half, options());
    for (let r = 0; r < layer.rows; r++) {
      const one = { weight: layer.weight.subarray(r * 64, (r + 1) * 64), rows: 1, cols: 64 };
      const keep = mask.subarray(r * 64, (r + 1) * 64);
      const best = quadraticLoss(one, leastSquaresRow(one.weight, keep, h), h);
      const swept = quadraticLoss(one, weight.subarray(r * 64, (r + 1) * 64), h);
      const zeroed = quadraticLoss(
        one,
        one.weight.map((w, i) => w * keep[i]),
        h,
      );
      expect(best).toBeLessThanOrEqual(swept * (1 + 1e-9));
      expect(best).toBeLessThanOrEqual(zeroed * (1 + 1e-9));
    }
  });

  it("removing whole columns is the exact least-squares solution", () => {
    const h = dampedHessian(statistics, 0.01);
    const { weight, mask } = method.prune(layer, statistics, { type: "columns", sparsity: 0.25 }, options());
    expect(countZeros(mask, 0, 64)).toBe(16);
    for (let r = 0; r < layer.rows; r++) {
      const best = leastSquaresRow(layer.weight.subarray(r * 64, (r + 1) * 64), mask.subarray(0, 64), h);
      best.forEach((w, c) => {
        expect(weight[r * 64 + c]).toBeCloseTo(w, 5);
      });
    }
  });

  it("dead inputs are pruned to zero and disturb nothing", () => {
    const inputs = layer.inputs.map((x, i) => (i % 64 === 5 ? 0 : x));
    const of = statisticsOf({ ...layer, inputs });
    const { weight, mask } = method.prune(layer, of, half, options());
    for (let r = 0; r < layer.rows; r++) expect(weight[r * 64 + 5]).toBe(0);
    expect(weight.every(Number.isFinite)).toBe(true);
    expect(countZeros(mask)).toBe(640);
  });

  it("earlier zeros stay zero in every pattern", () => {
    const earlier = magnitude.prune(layer, statistics, { type: "unstructured", sparsity: 0.3 }, { counting: "exact" });
    for (const pattern of [half, twoFour]) {
      const { weight, mask } = method.prune({ ...layer, ...earlier }, statistics, pattern, options());
      earlier.mask.forEach((keep, i) => {
        if (keep === 0) expect([mask[i], weight[i]]).toEqual([0, 0]);
      });
      if (pattern.type !== "nm") expect(countZeros(mask)).toBe(640);
      else {
        for (let at = 0; at < mask.length; at += 4) {
          expect(countZeros(mask, at, at + 4)).toBe(Math.max(2, countZeros(earlier.mask, at, at + 4)));
        }
      }
    }
  });

  it("permuting the rows permutes the result of keep:group", () => {
    const order = Array.from({ length: 20 }, (_, r) => (r * 7) % 20);
    const permute = (w: Float32Array) => Float32Array.from(w, (_, i) => w[order[Math.floor(i / 64)] * 64 + (i % 64)]);
    const straight = method.prune(layer, statistics, twoFour, options());
    const permuted = method.prune({ ...layer, weight: permute(layer.weight) }, statistics, twoFour, options());
    expect(permuted.weight).toEqual(permute(straight.weight));
  });

  it("rounds kept weights to the grid of the dense row in the same sweep", () => {
    const quantize = { bits: 3, groupSize: 0, scheme: "asymmetric" } as const;
    const { weight, quantized } = method.prune(layer, statistics, half, options({ quantize }));
    weight.forEach((w, i) => {
      const row = Math.floor(i / 64);
      expect(w).toBe(Math.fround(quantized!.scales[row] * (quantized!.codes[i] - quantized!.zeros[row])));
    });
    for (let r = 0; r < layer.rows; r++) {
      expect(new Set(weight.subarray(r * 64, (r + 1) * 64)).size).toBeLessThanOrEqual(8);
    }
  });

  it("one factor serves all layers of an input", () => {
    expect(layerFactor(statistics, 0.01)).toBe(layerFactor(statistics, 0.01));
    expect(layerFactor(statistics, 0.02)).not.toBe(layerFactor(statistics, 0.01));
  });

  it("over 20 random layers: sparsegpt < wanda < magnitude, and 50 % < 4:8 < 2:4", () => {
    const errors: Record<string, number[]> = {};
    const note = (name: string, value: number) => {
      errors[name] ??= [];
      errors[name].push(value);
    };
    for (let seed = 100; seed < 120; seed++) {
      const random = syntheticLayer(seed, 32, 64);
      const of = statisticsOf(random);
      for (const [name, pattern] of Object.entries({
        half: { type: "unstructured", sparsity: 0.5 },
        "4:8": { type: "nm", keep: 4, group: 8 },
        "2:4": { type: "nm", keep: 2, group: 4 },
      } satisfies Record<string, Pattern>)) {
        const norm = outputError(random, new Float32Array(random.weight.length));
        const share = (weight: Float32Array) => outputError(random, weight) / norm;
        note(`magnitude ${name}`, share(magnitude.prune(random, of, pattern, { counting: "exact" }).weight));
        note(`wanda ${name}`, share(wanda.prune(random, of, pattern, { alphaSearch: false }).weight));
        note(`sparsegpt ${name}`, share(method.prune(random, of, pattern, options()).weight));
      }
    }
    const average = (name: string) => mean(errors[name]);
    for (const pattern of ["half", "4:8", "2:4"]) {
      expect(average(`sparsegpt ${pattern}`)).toBeLessThan(average(`wanda ${pattern}`));
      expect(average(`wanda ${pattern}`)).toBeLessThan(average(`magnitude ${pattern}`));
    }
    for (const name of ["wanda", "sparsegpt"]) {
      expect(average(`${name} half`)).toBeLessThan(average(`${name} 4:8`));
      expect(average(`${name} 4:8`)).toBeLessThan(average(`${name} 2:4`));
    }
  });

  it("names options that do not fit the pattern", () => {
    expect(method.problems!(layer, twoFour, options({ blockSize: 30 }))).toEqual([
      "blockSize 30 is not a multiple of 4",
    ]);
    expect(method.problems!(layer, twoFour, options())).toEqual([]);
  });
});
