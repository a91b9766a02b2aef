import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { memoryFiles, memorySinks } from "../../src/io/index.js";
import { openCompute } from "../../src/kernels/internal.js";
import { topS } from "../../src/tensor/internal.js";
import { deviceEncoder } from "../../src/train/engine/device/deviceEncoder.js";
import { Memories } from "../../src/train/engine/device/memories.js";
import { DeviceProjection } from "../../src/train/engine/device/projection.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { constant, readState, Training, writeState } from "../../src/train/index.js";
import { method as iht } from "../../src/train/methods/iht.js";
import { type EncoderConfig, initialEncoder } from "../../src/train/models/encoderParameters.js";
import type { Objective } from "../../src/train/objective.js";
import { randomFor } from "../../src/train/seeds.js";
import { devices, distance } from "./deviceSupport.js";

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

describe.each(devices)("the encoder on %s", (_, device) => {
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
    const objective = (await deviceEncoder(config, device))!;
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
    expect(await deviceEncoder({ ...base, length: 10 })).toBeUndefined();
    expect(await deviceEncoder({ ...base, hiddenSize: 24, heads: 12 })).toBeUndefined();
  });
});

describe.each(devices)("the projection on the device: %s", (_, device) => {
  test.each<[string, (random: Random, i: number) => number]>([
    ["numbers of either sign", (random) => random.normal()],
    ["many equals", (random) => (random.integer(5) - 2) / 4],
    ["all equal but for the sign", (random) => (random.integer(2) === 0 ? 0.5 : -0.5)],
    ["hardly any that is not 0", (random) => (random.integer(100) === 0 ? random.normal() : 0)],
  ])("%s: what is kept is what the host keeps", async (_, value) => {
    const random = new Random(5);
    const values = Float32Array.from({ length: 30_000 }, (_, i) => value(random, i));
    // Stretches out of order, one inside the other's gap, and entries of no budget around them.
    const budgets = [
      { stretches: [stretch(20_000, 9000), stretch(100, 4001)], keep: 3333 },
      { stretches: [stretch(4200, 15_000)], keep: 1 },
      { stretches: [stretch(29_500, 7)], keep: 7 },
      { stretches: [stretch(29_600, 50)], keep: 0 },
    ];
    const expected = values.slice();
    for (const { stretches, keep } of budgets) {
      const parts = stretches.map(({ offset, length }) => expected.subarray(offset, offset + length));
      for (const [p, mask] of topS(parts, keep).entries()) for (const [i, k] of mask.entries()) if (!k) parts[p][i] = 0;
    }
    using compute = await openCompute(device);
    using memories = new Memories(compute);
    const memory = memories.filled(values, "values");
    const counters = compute.allocate(1, "counters");
    const projection = new DeviceProjection(memories, budgets);
    projection.record(memory, counters);
    const read = async () => new Float32Array(await compute.recorder.read(memory, 0, values.byteLength));
    expect(await read()).toEqual(expected);
    const nonZeros = new Set(
      budgets.flatMap(({ stretches }) =>
        stretches.flatMap(({ offset, length }) =>
          Array.from({ length }, (_, i) => offset + i).filter((i) => expected[i]),
        ),
      ),
    );
    expect([...new Uint32Array(await compute.recorder.read(counters, 0, 4))]).toEqual([nonZeros.size]);
    projection.record(memory, counters);
    expect(await read()).toEqual(expected);
  });

  const stretch = (offset: number, length: number) => ({ offset, length });
});

describe.each(devices)("hard thresholding that stays on the device: %s", (_, device) => {
  const steps = 6;
  let objective: Objective;
  beforeAll(async () => {
    objective = (await deviceEncoder(base, device))!;
    open.push(objective);
  });

  const begin = (settings: object, onDevice: boolean) =>
    new Training({
      objective,
      weights: weightsOf(base),
      // Steps that do not reach from 0 to the threshold: there Adam makes ties, which rounding decides.
      optimizer: { rate: constant(2e-3) },
      steps,
      seed: 1,
      method: (context) => iht.start(context, iht.options.parse(settings)),
      onDevice,
    });

  test.each([
    { scope: "global", density: 0.3 },
    { scope: "layer", density: 0.1 },
    { scope: "layer", density: 0.5, interval: 2 },
    { scope: "global", density: 1 },
  ])("%j: weights, masks and moments are the host's, stored and continued as well", async (settings) => {
    const host = begin(settings, false);
    const whole = begin(settings, true);
    let halves = begin(settings, true);
    for (let step = 0; step < steps; step++) {
      const batch = texts(base, 8, step);
      const expected = await host.advance(batch);
      expect((await whole.advance(batch)).loss).toBeCloseTo(expected.loss, 3);
      if (step === 3) {
        await halves.synchronise();
        const files = new Map<string, Uint8Array>();
        await writeState(memorySinks(files), halves.state);
        halves = begin(settings, true);
        halves.restore((await readState(memoryFiles("memory", files)))!);
      }
      await halves.advance(batch);
    }
    expect(whole.run.metrics?.().density).toBeCloseTo(host.run.metrics!().density, 6);
    const batch = texts(base, 8, steps);
    expect(distance(await whole.predict(batch), await host.predict(batch))).toBeLessThan(0.02);
    await whole.synchronise();
    await halves.synchronise();
    expect(halves.weights).toEqual(whole.weights);
    expect(halves.state).toEqual(whole.state);
    for (const [name, values] of host.weights) {
      // Adam divides what is left of a gradient that should be 0 by its own size.
      if (name.endsWith("k.bias")) continue;
      expect([name, distance(whole.weights.get(name)!, values) < 0.02]).toEqual([name, true]);
    }
    for (const [name, mask] of host.run.masks!) {
      const found = whole.run.masks!.get(name)!;
      const same = mask.reduce((count, entry, i) => count + (entry === found[i] ? 1 : 0), 0);
      expect([name, same / mask.length > 0.99]).toEqual([name, true]);
    }
  });

  test.each([{ freezeAt: 0.5 }, { countRetention: true }, { structure: "rows" }, { structure: "2:4" }])(
    "%j stays on the host",
    (settings) => {
      const context = { parameters: objective.parameters, weights: weightsOf(base), steps, seed: 1 };
      const run = iht.start({ ...context, optimizer: { rate: constant(1e-2) } }, iht.options.parse(settings));
      expect(run.device).toBeUndefined();
    },
  );
});
