import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { gpuEncoder } from "../../src/train/engine/gpu/gpuEncoder.js";
import { type EncoderConfig, initialEncoder } from "../../src/train/models/encoderParameters.js";
import type { Objective } from "../../src/train/objective.js";
import { randomFor } from "../../src/train/seeds.js";
import { distance, unavailable } from "./gpuSupport.js";

const open: Objective[] = [];
afterAll(() => {
  for (const objective of open) objective[Symbol.dispose]();
});

const base: EncoderConfig = {
  vocabSize: 31,
  length: 12,
  hiddenSize: 32,
  feedForwardSize: 48,
  heads: 4,
  blocks: 2,
  classes: 3,
};

/** Texts of several lengths, filled up with token 0; one is nothing but filling. */
function texts({ vocabSize, length, classes }: EncoderConfig, count: number, seed = 3) {
  const random = new Random(seed);
  const tokens = new Int32Array(count * length);
  const label = Int32Array.from({ length: count }, () => random.integer(classes));
  for (let text = 1; text < count; text++) {
    const words = 1 + random.integer(length);
    for (let i = 0; i < words; i++) tokens[text * length + i] = 1 + random.integer(vocabSize - 1);
  }
  return { tokens: { shape: [tokens.length], values: tokens }, label: { shape: [count], values: label } };
}

/** Norms and biases other than those a run begins with, so that they matter. */
function weightsOf(config: EncoderConfig) {
  const weights = initialEncoder(config, randomFor(1, "weights"));
  const random = new Random(4);
  for (const [name, values] of weights) {
    if (name.endsWith("bias") || name.includes("norm")) {
      for (let i = 0; i < values.length; i++) values[i] += 0.3 * random.normal();
    }
  }
  return weights;
}

describe.skipIf(unavailable !== undefined)(
  `the hand-written encoder on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    beforeAll(() => startEngine("wasm"));

    test.each<[string, Partial<EncoderConfig>, number]>([
      ["three classes, texts not a multiple of four", {}, 5],
      ["two classes, one block, a long text", { classes: 2, blocks: 1, length: 72 }, 8],
      ["more places of a token than one piece", { vocabSize: 3, length: 20 }, 12],
    ])("%s: loss, gradients and logits are the engine's", async (_, changes, count) => {
      const config = { ...base, ...changes };
      const [{ tracedObjective }, { encoder }] = await Promise.all([
        import("../../src/train/engine/tracedObjective.js"),
        import("../../src/train/models/encoder.js"),
      ]);
      const oracle = tracedObjective(encoder(config));
      const objective = (await gpuEncoder(config))!;
      open.push(oracle, objective);
      const weights = weightsOf(config);
      const batch = texts(config, count);
      const expected = await oracle.lossAndGradients(weights, batch);
      const found = await objective.lossAndGradients(weights, batch);
      expect(found.loss).toBeCloseTo(expected.loss, 5);
      expect([...found.gradients.keys()].sort()).toEqual([...expected.gradients.keys()].sort());
      const norm = Math.hypot(...Array.from(expected.gradients.values(), (gradient) => Math.hypot(...gradient)));
      for (const [name, gradient] of expected.gradients) {
        const own = found.gradients.get(name)!;
        // The bias of keys moves all scores of a row alike: its gradient is 0 but for rounding.
        if (name.endsWith("k.bias")) expect([name, Math.hypot(...own) / norm < 1e-6]).toEqual([name, true]);
        else expect([name, distance(own, gradient) < 1e-4]).toEqual([name, true]);
      }
      expect(await objective.loss(weights, batch)).toBeCloseTo(expected.loss, 5);
      const logits = await objective.predict(weights, batch);
      expect(logits).toHaveLength(count * config.classes);
      expect(distance(logits, await oracle.predict(weights, batch))).toBeLessThan(1e-5);
      // Another number of texts, then the first again: nothing is left over.
      const other = texts(config, count + 1, 7);
      expect((await objective.lossAndGradients(weights, other)).loss).toBeCloseTo(await oracle.loss(weights, other), 5);
      expect((await objective.lossAndGradients(weights, batch)).gradients).toEqual(found.gradients);
    });

    test("sizes that it does not do are left to the engine", async () => {
      expect(await gpuEncoder({ ...base, length: 10 })).toBeUndefined();
      expect(await gpuEncoder({ ...base, hiddenSize: 24, heads: 12 })).toBeUndefined();
    });
  },
);
