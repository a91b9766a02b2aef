import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import type { WeightFormatId } from "../../src/pack/index.js";
import { backendsUnderTest } from "../contract/backendsUnderTest.js";
import {
  architectureGolden,
  architectureNames,
  type Golden,
  greedyContinuation,
  load,
  logitsOf,
  negativeLogLikelihood,
  path,
  tiny6mGolden,
} from "./golden.js";

const tiny6m = "../../models/tiny-6m";

/** So many positions are computed again in passes of other lengths. */
const chunkedPositions = 24;

/** Against an independent implementation. bf16 weights are exact where the checkpoint is bf16. */
const cases: readonly { name: string; directory: string; weights: WeightFormatId; golden: Golden }[] = [
  ...architectureNames.map((name) => ({
    name,
    directory: `arch/${name}`,
    weights: "f32" as const,
    golden: architectureGolden(name),
  })),
  { name: "tiny-6m", directory: tiny6m, weights: "f32", golden: tiny6mGolden() },
  { name: "tiny-6m", directory: tiny6m, weights: "bf16", golden: tiny6mGolden() },
];


for (const subject of backendsUnderTest) {
  describe(subject.name, () => {
    // Once for all models: a GPU compiles and checks its kernels when it is opened and when it first meets a format.
    let backend: Backend;
    beforeAll(async () => {
      backend = await subject.create();
    });
    afterAll(() => backend[Symbol.dispose]());

    describe.each(cases)("$name, $weights weights", ({ directory, weights, golden }) => {
      let model: Model;
      let logits: Float32Array[];
      beforeAll(async () => {
        model = await load(path(directory), backend, weights);
        logits = await logitsOf(model, golden.ids);
      });
      afterAll(() => model[Symbol.dispose]());

      test("the NLL of every token is within 2e-3", () => {
        expect(golden.nll.length).toBe(golden.ids.length - 1);
        const nll = golden.nll.map((_, i) => negativeLogLikelihood(logits[i], golden.ids[i + 1]));
        const worst = Math.max(...nll.map((value, i) => Math.abs(value - golden.nll[i])));
        expect(worst).toBeLessThan(2e-3);
      });

      test("the last logits are within 2e-3", () => {
        const last = logits.at(-1)!;
        for (const [id, logit] of golden.lastLogits)
          expect(Math.abs(last[id] - logit), `token ${id}`).toBeLessThan(2e-3);
      });

      test("greedy decoding gives the same tokens", async () => {
        expect(await greedyContinuation(model, golden.greedyPrompt, golden.greedy.length)).toEqual(golden.greedy);
      });

      test.each([1, 3, 16])("passes of %i tokens give the same logits within 1e-4", async (chunk) => {
        const chunked = await logitsOf(model, golden.ids.subarray(0, chunkedPositions), chunk);
        for (const [position, row] of chunked.entries()) {
          const worst = row.reduce((most, v, i) => Math.max(most, Math.abs(v - logits[position][i])), 0);
          expect(worst, `position ${position}`).toBeLessThan(1e-4);
        }
      });
    });
  });
}
