import { describe, expect, it } from "vitest";
import { countZeros, outputError, statisticsOf, syntheticLayer } from "../../../test/support/layers.js";
import { Random } from "../../core/index.js";
import { InputStatistics, type Pattern, type PatternType, patternName, pruneMethods, sparsityOf } from "../index.js";

const examples: Readonly<Record<PatternType, Pattern[]>> = {
  unstructured: [
    { type: "unstructured", sparsity: 0.5 },
    { type: "unstructured", sparsity: 0.75 },
  ],
  nm: [
    { type: "nm", keep: 2, group: 4 },
    { type: "nm", keep: 4, group: 8 },
    { type: "nm", keep: 1, group: 4 },
  ],
  block: [{ type: "block", rows: 4, cols: 4, sparsity: 0.5 }],
  rows: [{ type: "rows", sparsity: 0.25 }],
  columns: [{ type: "columns", sparsity: 0.25 }],
  neurons: [],
  heads: [],
};

const layer = syntheticLayer(61, 32, 64);
const collected = statisticsOf(layer);
const statistics = new InputStatistics(64, collected.tokens, {
  gram: collected.get("gram"),
  gradients: Float32Array.from(layer.weight, () => 1),
  squaredGradients: Float32Array.from(layer.weight, () => 1),
});
const random = new Random(62);

/** A mask of the same pattern and number of zeros, chosen at random. */
function randomError(pattern: Pattern, zeros: number): number {
  const scores = layer.weight.map(() => 1 + random.uniform());
  const keep = new Uint8Array(scores.length).fill(1);
  if (pattern.type === "nm") {
    for (let at = 0; at < keep.length; at += pattern.group) {
      const order = Array.from({ length: pattern.group }, (_, i) => at + i).sort((a, b) => scores[a] - scores[b]);
      for (const i of order.slice(pattern.keep)) keep[i] = 0;
    }
  } else {
    for (const i of Array.from(keep.keys())
      .sort((a, b) => scores[a] - scores[b])
      .slice(0, zeros))
      keep[i] = 0;
  }
  return outputError(
    layer,
    layer.weight.map((w, i) => w * keep[i]),
  );
}

describe.each(Object.entries(pruneMethods))("pruning method %s", async (id, load) => {
  const { method } = await load();
  const options = method.options.parse({});
  const patterns = (Object.keys(method.patterns) as PatternType[]).flatMap((type) => examples[type]);

  it("is filed under its id, names its source, and takes no unknown options", () => {
    expect(method.id).toBe(id);
    expect(method.paper).toMatch(/\d{4}/);
    expect(method.options.safeParse({ unheardOf: 1 }).success).toBe(false);
  });

  it.each(patterns.map((pattern) => [patternName(pattern), pattern] as const))(
    "%s: exact zeros, repeatable, input untouched, better than a random mask",
    (_name, pattern) => {
      const before = layer.weight.slice();
      const { weight, mask, recovered } = method.prune(layer, statistics, pattern, options);
      expect(layer.weight).toEqual(before);
      const back = recovered === undefined ? 0 : recovered.length - countZeros(recovered);
      expect(countZeros(mask) + back).toBe(sparsityOf(pattern) * mask.length);
      weight.forEach((w, i) => {
        if (mask[i] === 0) expect(Object.is(w, 0)).toBe(true);
      });
      if (pattern.type === "nm") {
        for (let at = 0; at < mask.length; at += pattern.group) {
          const inPattern = Array.from({ length: pattern.group }, (_, i) => mask[at + i] - (recovered?.[at + i] ?? 0));
          expect(inPattern.reduce((a, b) => a + b)).toBe(pattern.keep);
        }
      }
      const again = method.prune(layer, statistics, pattern, options);
      expect(again.weight).toEqual(weight);
      expect(outputError(layer, weight)).toBeLessThan(randomError(pattern, countZeros(mask)));
    },
  );

  it("says so when a statistic it needs is missing", () => {
    if (method.needs(options).length === 0) return;
    const nothing = new InputStatistics(64, 0);
    expect(() => method.prune(layer, nothing, patterns[0], options)).toThrow(/was not collected/);
  });

  it("refuses patterns it does not have", () => {
    expect(() => method.prune(layer, statistics, { type: "neurons", sparsity: 0.5 }, options)).toThrow();
  });
});
