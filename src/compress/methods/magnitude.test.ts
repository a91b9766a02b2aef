import { describe, expect, it } from "vitest";
import { countZeros } from "../../../test/support/layers.js";
import { Random } from "../../core/index.js";
import { InputStatistics } from "../statistics.js";
import { method } from "./magnitude.js";

const rows = 12;
const cols = 40;
const random = new Random(5);
const layer = { weight: Float32Array.from({ length: rows * cols }, () => random.normal()), rows, cols };
const statistics = new InputStatistics(cols, 0);
const prune = (pattern: Parameters<typeof method.prune>[2], counting: "exact" | "threshold" = "exact") =>
  method.prune(layer, statistics, pattern, { counting });

describe("magnitude", () => {
  it("changes the weights least of all masks with as many zeros", () => {
    const { weight, mask } = prune({ type: "unstructured", sparsity: 0.6 });
    expect(countZeros(mask)).toBe(288);
    const lost = layer.weight.reduce((sum, w, i) => sum + (w - weight[i]) ** 2, 0);
    for (let trial = 0; trial < 50; trial++) {
      const other = Uint8Array.from(mask);
      for (let i = other.length - 1; i > 0; i--) {
        const j = random.integer(i + 1);
        [other[i], other[j]] = [other[j], other[i]];
      }
      const otherLost = layer.weight.reduce((sum, w, i) => sum + (other[i] === 0 ? w * w : 0), 0);
      expect(lost).toBeLessThan(otherLost);
    }
  });

  it("kept weights are untouched, pruned ones are +0, and the input is not written to", () => {
    const before = layer.weight.slice();
    const { weight, mask } = prune({ type: "nm", keep: 2, group: 4 });
    weight.forEach((w, i) => {
      expect(Object.is(w, mask[i] === 1 ? layer.weight[i] : 0)).toBe(true);
    });
    expect(layer.weight).toEqual(before);
  });

  it("pruning twice changes nothing", () => {
    for (const pattern of [
      { type: "unstructured", sparsity: 0.5, scope: "row" },
      { type: "nm", keep: 1, group: 4 },
      { type: "block", rows: 4, cols: 4, sparsity: 0.5 },
      { type: "columns", sparsity: 0.5 },
    ] as const) {
      const once = prune(pattern);
      const twice = method.prune({ ...layer, weight: once.weight }, statistics, pattern, { counting: "exact" });
      expect(twice.mask).toEqual(once.mask);
    }
  });

  it("the published threshold convention drops one more", () => {
    expect(countZeros(prune({ type: "unstructured", sparsity: 0.5 }, "threshold").mask)).toBe(241);
  });

  it("earlier zeros stay", () => {
    const mask = new Uint8Array(rows * cols).fill(1);
    const largest = layer.weight.reduce((best, w, i) => (Math.abs(w) > Math.abs(layer.weight[best]) ? i : best), 0);
    mask[largest] = 0;
    const pattern = { type: "unstructured", sparsity: 0.1 } as const;
    expect(method.prune({ ...layer, mask }, statistics, pattern, { counting: "exact" }).mask[largest]).toBe(0);
  });
});
