import { expect, test } from "vitest";
import { activationOf, findStep, readersOf } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { evaluateQuality } from "../../src/eval/index.js";
import { type ActivationSparsity, parseArtifact, serializeArtifact } from "../../src/io/index.js";
import { openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { calibrateActivationSparsity, expectedBytesSaved, toThresholds } from "../../src/pipeline/index.js";
import type { TokenizedText } from "../../src/text/index.js";
import { covered } from "../golden/covered.js";
import { encoderNames, load, logitsOf, path } from "../golden/golden.js";

const window = 24;
const random = new Random(11);
const text: TokenizedText = {
  tokens: Uint32Array.from({ length: 4 * window }, () => random.integer(512)),
  sha256: "0".repeat(64),
};
const calibrate = (model: Model, method: ActivationSparsity["method"], more: object = {}) =>
  calibrateActivationSparsity(model, text, { sparsities: [0.4], method, window, ...more });

/** Share of the inputs that decoding skips under thresholds, and how far its bytes are from what was expected. */
async function decoded(model: Model, record: ActivationSparsity) {
  const tokens = text.tokens.subarray(0, window);
  model.backend.takeCounters();
  await logitsOf(model, tokens, 1, { thresholds: toThresholds(record) });
  const { inputs, inputsSkipped, weightBytesRead } = model.backend.takeCounters();
  const saved = model.weightBytes.perToken - weightBytesRead / window;
  return { inputs: inputs / window, skipped: inputsSkipped / inputs, saved };
}

/** GELU, ReLU (whose zeros are more than was asked for) and the gated kinds; maps of their own, stored in part, transposed. */
const families = covered.thresholds.filter((name) => !(encoderNames as readonly string[]).includes(name));

test.each(families)("%s: TEAL places a threshold on every map, and running with them skips as much", async (family) => {
  using backend = await openBackend("reference");
  using model = await load(path(`arch/${family}`), backend, "f32");
  const { records, realisedSparsities, sites } = await calibrate(model, "teal");
  const [record] = records;
  const { blocks } = model.config.spec;
  for (const [layer, { maps }] of record.layers.entries()) {
    const roles = [...readersOf(blocks[layer]).values()].flat();
    expect(Object.keys(maps).sort()).toEqual(roles.sort());
    for (const [role, { sparsity, threshold }] of Object.entries(maps)) {
      // Exact zeros, as ReLU makes them, are skipped beyond what was asked for.
      const [site] = [...readersOf(blocks[layer])].find(([, readers]) => readers.includes(role))!;
      expect(sparsity, role).toBeCloseTo(Math.max(0.4, sites[layer][site].zeros), 2);
      expect(threshold > 0, role).toBe(sites[layer][site].zeros < 0.4);
    }
  }
  expect(realisedSparsities[0]).toBeGreaterThan(0.395);
  if (family !== "opt" && family !== "terraformer") expect(realisedSparsities[0]).toBeLessThan(0.405);

  // What is written is read again, and says the same.
  const bytes = serializeArtifact({ rarefy: 2, activationSparsity: record });
  expect(parseArtifact(JSON.parse(new TextDecoder().decode(bytes)), "rarefy.json").activationSparsity).toEqual(record);

  // Sparse inputs change later activations, so what a pass drops is near the share that was counted.
  const variants = [
    { name: "dense", model },
    { name: "sparse", model, thresholds: toThresholds(record) },
  ];
  const [, sparse] = await evaluateQuality(variants, text, { window });
  expect(Math.abs(sparse.activationSparsity - realisedSparsities[0])).toBeLessThan(0.05);
  expect(sparse.divergence!.klDivergence).toBeGreaterThan(0);
  const { saved } = await decoded(model, record);
  expect(saved / expectedBytesSaved(model.config.spec, "f32", record)).toBeGreaterThan(0.85);
  // Small experts see few of these tokens.
  expect(saved / expectedBytesSaved(model.config.spec, "f32", record)).toBeLessThan(
    family === "qwen3_moe" ? 1.25 : 1.15,
  );
});

test.each(families)("%s: CATS leaves zeros behind the activation function alone", async (family) => {
  using backend = await openBackend("reference");
  using model = await load(path(`arch/${family}`), backend, "f32");
  const [record] = (await calibrate(model, "cats")).records;
  const gated = activationOf(model.config.spec.blocks[0])!.step.times !== undefined;
  for (const { maps, gate } of record.layers) {
    expect(Object.keys(maps)).toEqual(gated ? [] : ["down_proj"]);
    expect((gate ?? maps.down_proj).sparsity).toBeGreaterThan(0.395);
  }
  const { inputs, skipped } = await decoded(model, record);
  const { blocks } = model.config;
  const perToken = (layer: number) => findStep(model.config.spec.blocks[layer], "mixture")?.router.perToken ?? 1;
  const hidden = blocks.reduce((sum, { intermediateSize }, layer) => sum + intermediateSize * perToken(layer), 0);
  expect(inputs).toBe(hidden);
  expect(
    Math.abs(
      skipped -
        record.layers.reduce((sum, { maps, gate }) => sum + (gate ?? maps.down_proj).sparsity, 0) / blocks.length,
    ),
  ).toBeLessThan(0.06);
});

test("greedy allocation judges the maps that a block has", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/gpt2"), backend, "f32");
  const events: { done: number; total?: number }[] = [];
  const greedy = {
    allocation: "greedy",
    greedyBase: 0.5,
    greedyTokens: window,
    onProgress: (e: never) => events.push(e),
  };
  const { allocationRows, records } = await calibrate(model, "teal", greedy);
  expect(Object.keys(allocationRows[0].at(-1)!.shares)).toEqual(Object.keys(records[0].layers[0].maps));
  expect(events.at(-1)!.done).toBe(events.at(-1)!.total);
});

test("a gate threshold for a block without a gate is refused", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/gpt2"), backend, "f32");
  const thresholds = { maps: [{}, {}], gate: [0, 0.1] };
  await expect(logitsOf(model, text.tokens.subarray(0, 2), 1, { thresholds })).rejects.toThrow("layer 1 has no gate");
});
