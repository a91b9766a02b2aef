import { beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { evaluateQuality } from "../../src/eval/index.js";
import type { Backend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import type { WeightFormatId } from "../../src/pack/index.js";
import { calibrateActivationSparsity, toThresholds } from "../../src/pipeline/index.js";
import type { TokenizedText } from "../../src/text/index.js";
import { backendsUnderTest } from "../contract/backendsUnderTest.js";
import { load, logitsOf, path } from "../golden/golden.js";
import { roles } from "../support/gatedBlock.js";

const window = 32;
const random = new Random(7);
const text: TokenizedText = {
  tokens: Uint32Array.from({ length: 4 * window }, () => random.integer(512)),
  sha256: "0".repeat(64),
};

/** Calibrates, evaluates the result, and decodes with it. */
async function chain(backend: Backend, weights: WeightFormatId) {
  const model = await load(path("arch/llama"), backend, weights);
  const { records } = await calibrateActivationSparsity(model, text, { sparsities: [0.5], window });
  const thresholds = toThresholds(records[0]);
  const [dense, sparse] = await evaluateQuality(
    [
      { name: "dense", model },
      { name: "sparse", model, thresholds },
    ],
    text,
    { window },
  );
  return { thresholds, dense, sparse, skipped: await skippedInDecoding(model, thresholds) };
}

async function skippedInDecoding(model: Model, thresholds: Model["thresholds"]): Promise<number> {
  model.backend.takeCounters();
  await logitsOf(model, text.tokens.subarray(0, window), 1, { thresholds });
  const { inputs, inputsSkipped } = model.backend.takeCounters();
  return inputsSkipped / inputs;
}

const [reference, ...others] = backendsUnderTest;

/**
 * Sums in another order move every figure a little; inputs rounded to 8 bits move it by about 1 %. Values beside a
 * threshold then fall on its other side, which the bounds on what follows from it allow for.
 */
const bounds = {
  f32Sums: { threshold: 1e-3, dense: 1e-4, sparse: 0.02 },
  int8Activations: { threshold: 0.05, dense: 0.02, sparse: 0.1 },
};

describe.each(["f32", "bf16", "q8", "q4"] as const)("TEAL on %s weights", (weights) => {
  let expected: Awaited<ReturnType<typeof chain>>;
  beforeAll(async () => {
    using backend = await reference.create();
    expected = await chain(backend, weights);
  });

  test.each(others)("$name: thresholds, perplexity and skipped inputs", async ({ create, tolerances }) => {
    using backend = await create();
    const found = await chain(backend, weights);
    const bound = tolerances.linear[weights].int8Activations ? bounds.int8Activations : bounds.f32Sums;
    const ratio = (layer: number, role: string) =>
      found.thresholds.maps[layer][role] / expected.thresholds.maps[layer][role];
    const worst = Math.max(...[0, 1].flatMap((layer) => roles.map((role) => Math.abs(ratio(layer, role) - 1))));
    expect(worst).toBeLessThan(bound.threshold);
    expect(Math.abs(found.dense.nll - expected.dense.nll)).toBeLessThan(bound.dense);
    expect(Math.abs(found.sparse.nll - expected.sparse.nll)).toBeLessThan(bound.sparse);
    expect(Math.abs(found.sparse.activationSparsity - 0.5)).toBeLessThan(0.05);
    expect(Math.abs(found.skipped - 0.5)).toBeLessThan(0.06);
  });
});
