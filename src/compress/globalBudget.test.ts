import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { shareGlobally } from "./globalBudget.js";
import { zerosFor } from "./pattern.js";

const tensor = (name: string, values: readonly number[]) => ({
  name,
  length: values.length,
  scores: async () => Float32Array.from(values, Math.abs),
});
const valuesArbitrary = fc.array(fc.oneof(fc.float({ min: 0, max: 4, noNaN: true }), fc.constantFrom(0, 1, 1.001)), {
  minLength: 1,
  maxLength: 40,
});

describe("one budget for all tensors", () => {
  it("equals sorting everything together", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(valuesArbitrary, { minLength: 1, maxLength: 5 }),
        fc.double({ min: 0, max: 0.99, noNaN: true }),
        async (tensors, sparsity) => {
          const all = tensors.flatMap((values, t) => values.map((v) => ({ t, score: Math.fround(Math.abs(v)) })));
          all.sort((a, b) => a.score - b.score);
          const expected = tensors.map(() => 0);
          for (const { t } of all.slice(0, zerosFor(all.length, sparsity))) expected[t]++;
          const scored = tensors.map((values, t) => tensor(`${t}`, values));
          expect(await shareGlobally(scored, sparsity, 1)).toEqual(expected);
        },
      ),
    );
  });

  it("spares a tensor that would be emptied, and the others bear it", async () => {
    const small = tensor(
      "small",
      Array.from({ length: 100 }, (_, i) => 0.001 * (i + 1)),
    );
    const large = tensor(
      "large",
      Array.from({ length: 100 }, (_, i) => 1 + i),
    );
    expect(await shareGlobally([small, large], 0.5, 1)).toEqual([100, 0]);
    expect(await shareGlobally([small, large], 0.5, 0.8)).toEqual([80, 20]);
    await expect(shareGlobally([small, large], 0.9, 0.8)).rejects.toThrow(/more than the 0.8/);
  });
});
