import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import { loadModel, type Model } from "../../src/model/index.js";
import { calibrateActivationSparsity, toThresholds } from "../../src/pipeline/index.js";
import { classify, embedText, Sequence } from "../../src/runtime/index.js";
import { backendsUnderTest } from "../contract/backendsUnderTest.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { path } from "./golden.js";

const golden = JSON.parse(readFileSync(path("arch/bert/golden.json"), "utf8"));
const ids = Uint32Array.from(golden.input_ids);

const expectNear = (actual: ArrayLike<number>, expected: readonly number[], tolerance: number) => {
  expect(actual.length).toBe(expected.length);
  for (const [i, value] of expected.entries()) expect(Math.abs(actual[i] - value), `${i}`).toBeLessThan(tolerance);
};

/** The encoder alone, as a model of embeddings is stored. */
async function withoutHead(): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden("bert");
  checkpoint.config = { ...checkpoint.config, architectures: ["BertModel"] };
  for (const [name, tensor] of [...checkpoint.tensors]) {
    checkpoint.tensors.delete(name);
    const own = /^bert\.(?!pooler)(.*)$/.exec(name)?.[1];
    if (own !== undefined) checkpoint.tensors.set(own, { ...tensor, name: own });
  }
  return checkpoint;
}

for (const subject of backendsUnderTest) {
  describe(`${subject.name}: bert`, () => {
    let backend: Backend;
    let model: Model;
    beforeAll(async () => {
      backend = await subject.create();
      model = await loadModel(await MemoryCheckpoint.golden("bert"), backend, { weights: "f32" });
    });
    afterAll(() => backend[Symbol.dispose]());

    test("the logits of a text, and of two, within 2e-3", async () => {
      const { logits, probabilities, label } = await classify(model, ids);
      expectNear(logits, golden.logits, 2e-3);
      expect(label).toBe(`LABEL_${golden.logits.indexOf(Math.max(...golden.logits))}`);
      expect(probabilities.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
      const types = Uint32Array.from(ids, (_, i) => (i < golden.second_text_from ? 0 : 1));
      expectNear((await classify(model, ids, { types })).logits, golden.logits_of_two_texts, 2e-3);
    });

    test("vectors of a text within 2e-4", async () => {
      expectNear(await embedText(model, ids), golden.mean, 2e-4);
      expectNear(await embedText(model, ids, { pooling: "first" }), golden.first, 2e-4);
    });
  });
}

describe("an encoder", () => {
  test("runs sparse where thresholds say so: calibrated, it keeps nearly all of its vectors", async () => {
    using backend = await backendsUnderTest[0].create();
    using model = await loadModel(await MemoryCheckpoint.golden("bert"), backend, { weights: "f32" });
    const text = { tokens: Uint32Array.from({ length: 96 }, (_, i) => ids[(7 * i) % 24]), sha256: "0".repeat(64) };
    const calibrated = await calibrateActivationSparsity(model, text, { sparsities: [0.25], method: "teal", window: 24 });
    expect(calibrated.realisedSparsities[0]).toBeCloseTo(0.25, 2);
    const dense = await embedText(model, ids);
    const sparse = await embedText(model, ids, { thresholds: toThresholds(calibrated.records[0]) });
    const cosine = sparse.reduce((sum, value, i) => sum + value * dense[i], 0);
    expect(cosine).toBeGreaterThan(0.9);
    expect(cosine).toBeLessThan(0.9999);
  });

  test("without a head makes the same vectors and does not classify", async () => {
    using backend = await backendsUnderTest[0].create();
    using model = await loadModel(await withoutHead(), backend, { weights: "f32" });
    expectNear(await embedText(model, ids), golden.mean, 2e-4);
    await expect(classify(model, ids)).rejects.toThrow(/bert model has no head that classifies/);
  });

  test("predicts no next token, and is told what it does; a decoder is not taken for one", async () => {
    using backend = await backendsUnderTest[0].create();
    using model = await loadModel(await MemoryCheckpoint.golden("bert"), backend, { weights: "f32" });
    expect(() => new Sequence(model, 8)).toThrow(/predicts no next token; it puts labels on texts: `rarefy classify`/);
    using cache = model.createCache(8);
    await expect(model.forward(ids.subarray(0, 4), cache, 0)).rejects.toThrow(/reads a text as a whole/);
    using decoder = await loadModel(await MemoryCheckpoint.golden("llama"), backend, { weights: "f32" });
    await expect(embedText(decoder, ids)).rejects.toThrow(/llama model reads texts token by token/);
  });
});
