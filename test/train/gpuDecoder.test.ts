import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { memoryFiles, memorySinks, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { describeDecoder } from "../../src/model/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { gpuDecoder } from "../../src/train/engine/gpu/gpuDecoder.js";
import {
  cosine,
  modelParameters,
  type Objective,
  readState,
  readWeights,
  Training,
  trainMethods,
  type Values,
  writeState,
} from "../../src/train/index.js";
import { cloneValues } from "../../src/train/values.js";
import { distance, unavailable } from "./gpuSupport.js";

const open: Objective[] = [];
afterAll(() => {
  for (const objective of open) objective[Symbol.dispose]();
});

async function modelOf(directory: string) {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  const { config } = await describeDecoder(checkpoint);
  const parameters = modelParameters(config.spec, checkpoint.tensors);
  const weights = await readWeights(checkpoint, parameters);
  await checkpoint.close();
  return { spec: config.spec, parameters, weights };
}

function randomBatch(vocabulary: number, length: number, seed = 3) {
  const random = new Random(seed);
  const ids = () => Int32Array.from({ length }, () => random.integer(vocabulary));
  return { tokens: { shape: [length], values: ids() }, label: { shape: [length], values: ids() } };
}

describe.skipIf(unavailable !== undefined)(
  `the hand-written step on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    beforeAll(() => startEngine("wasm"));

    test.each([
      ["llama", 12, 3],
      ["llama3-rope", 20, 2],
      ["mistral", 72, 1],
    ])("%s: loss, gradients and logits are the engine's, windows of %d", async (name, window, sequences) => {
      const { spec, parameters, weights } = await modelOf(`test/golden/arch/${name}`);
      const [{ tracedObjective }, { traceModel }] = await Promise.all([
        import("../../src/train/engine/tracedObjective.js"),
        import("../../src/train/trace/trace.js"),
      ]);
      const oracle = tracedObjective(traceModel(spec, parameters, window));
      const objective = (await gpuDecoder(spec, parameters, window))!;
      open.push(oracle, objective);
      const batch = randomBatch(spec.vocabSize, window * sequences);
      const expected = await oracle.lossAndGradients(weights, batch);
      const found = await objective.lossAndGradients(weights, batch);
      expect(found.loss).toBeCloseTo(expected.loss, 5);
      expect(found.measured.get("prediction")![0]).toBeCloseTo(expected.loss, 5);
      for (const [parameter, gradient] of expected.gradients) {
        expect([parameter, distance(found.gradients.get(parameter)!, gradient) < 1e-4]).toEqual([parameter, true]);
      }
      expect(await objective.loss(weights, batch)).toBeCloseTo(expected.loss, 5);
      expect(distance(await objective.predict(weights, batch), await oracle.predict(weights, batch))).toBeLessThan(
        1e-5,
      );
      // Another number of sequences, then the first again: buffers are made anew, nothing is left over.
      const other = randomBatch(spec.vocabSize, window * (sequences + 1));
      expect((await objective.lossAndGradients(weights, other)).loss).toBeCloseTo(await oracle.loss(weights, other), 5);
      expect((await objective.lossAndGradients(weights, batch)).gradients).toEqual(found.gradients);
    });
  },
);

describe.skipIf(unavailable !== undefined)("a run that stays on the device", () => {
  const steps = 5;
  const window = 8;

  let model: Awaited<ReturnType<typeof modelOf>>;
  let objective: Objective;
  beforeAll(async () => {
    model = await modelOf("test/golden/arch/llama");
    objective = (await gpuDecoder(model.spec, model.parameters, window))!;
    open.push(objective);
  });

  async function begin(id: string, options: object, onDevice: boolean, weights: Values) {
    const { method } = await trainMethods[id]();
    return new Training({
      objective,
      weights: cloneValues(weights),
      optimizer: {
        rate: cosine({ peak: 1e-2, warmup: 2, steps }),
        beta2: 0.95,
        weightDecay: 0.1,
        decays: (name) => name.includes("proj"),
        clip: 1,
      },
      steps,
      seed: 1,
      method: (context) => method.start(context, method.options.parse(options)),
      onDevice,
    });
  }

  test.each<[string, object]>([
    ["dense", {}],
    ["fixed-mask", { mask: "magnitude" }],
    ["ste", { pattern: "1:4" }],
    ["sr-ste", { decay: 0.02, interval: 2 }],
    ["ast", { decay: 0.02, interval: 2 }],
    ["cast", { decay: 0.01, interval: 2 }],
    ["iht", { density: 0.5 }],
  ])("%s %j: weights, masks and moments are the host's, stored and continued as well", async (id, options) => {
    const { spec, weights } = model;
    const host = await begin(id, options, false, weights);
    const whole = await begin(id, options, true, weights);
    let halves = await begin(id, options, true, weights);
    const random = new Random(8);
    for (let step = 0; step < steps; step++) {
      const batch = randomBatch(spec.vocabSize, window, random.integer(1000));
      const expected = await host.advance(batch);
      expect((await whole.advance(batch)).loss).toBeCloseTo(expected.loss, 3);
      if (step === 2) {
        await halves.synchronise();
        const files = new Map<string, Uint8Array>();
        await writeState(memorySinks(files), halves.state);
        halves = await begin(id, options, true, weights);
        halves.restore((await readState(memoryFiles("memory", files)))!);
      }
      await halves.advance(batch);
    }
    await whole.synchronise();
    await halves.synchronise();
    expect(halves.weights).toEqual(whole.weights);
    expect(halves.run.metrics?.()).toEqual(whole.run.metrics?.());
    for (const [name, mask] of host.run.masks ?? []) {
      const found = whole.run.masks!.get(name)!;
      const same = mask.reduce((count, entry, i) => count + (entry === found[i] ? 1 : 0), 0);
      expect([name, same / mask.length > 0.99]).toEqual([name, true]);
    }
    for (const training of [host, whole]) training.finish();
    for (const [name, values] of host.weights) {
      expect([name, distance(whole.weights.get(name)!, values) < 0.02]).toEqual([name, true]);
    }
  });
});

test("what the step does not do is left to the engine", async () => {
  for (const name of ["qwen2", "qwen3", "phi3", "gemma2", "gemma3", "gpt2", "opt", "mixtral"]) {
    const { spec, parameters } = await modelOf(`test/golden/arch/${name}`);
    expect([name, await gpuDecoder(spec, parameters, 16)]).toEqual([name, undefined]);
  }
  const { spec, parameters } = await modelOf("test/golden/arch/llama");
  expect(await gpuDecoder(spec, parameters, 18)).toBeUndefined();
  // The same tensors, and yet not the same model.
  const without = (kind: string) =>
    spec.blocks.map(({ steps }) => ({ steps: steps.filter((step) => step.do !== kind) }));
  const scaled = { ...spec.embedding, scale: 2 };
  for (const other of [
    { ...spec, blocks: without("rotate") },
    { ...spec, embedding: scaled },
  ]) {
    expect(await gpuDecoder(other, parameters, 16)).toBeUndefined();
  }
});
