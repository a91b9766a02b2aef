import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { ModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { memoryFiles, memorySinks, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import type { Compute, DeviceMemory } from "../../src/kernels/internal.js";
import { describeDecoder } from "../../src/model/index.js";
import { decoderSchedule, deviceDecoder } from "../../src/train/engine/device/deviceDecoder.js";
import type { TokenPlaces } from "../../src/train/engine/device/embedding.js";
import { ScheduledStep } from "../../src/train/engine/device/scheduledStep.js";
import { startEngine } from "../../src/train/engine/engine.js";
import {
  cosine,
  type LossAndGradients,
  modelParameters,
  type Objective,
  type ParameterInfo,
  readState,
  readWeights,
  Training,
  trainMethods,
  writeState,
} from "../../src/train/index.js";
import type { RouterOptions } from "../../src/train/models/routerOptions.js";
import { cloneValues } from "../../src/train/values.js";
import { devices, distance } from "./deviceSupport.js";

vi.mock("../../src/kernels/internal.js", async (importOriginal) => {
  const { withSharedCompute } = await import("./sharedCompute.js");
  return withSharedCompute(await importOriginal<typeof import("../../src/kernels/internal.js")>());
});

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

/** Dispatches and bytes of a step, of a device that only counts. */
function counted(spec: ModelSpec, parameters: readonly ParameterInfo[], window: number, sequences: number) {
  const schedule = decoderSchedule(spec, parameters, window)!;
  const used = { words: schedule.tables.reduce((sum, { values }) => sum + values.length, 0), dispatches: 0 };
  const compute = {
    allocate(words: number) {
      used.words += words;
      return {};
    },
    device: { free() {} },
    enoughTiles: 512,
    rowUnit: 4,
    recorder: {
      makeRoom() {},
      run: () => used.dispatches++,
    },
  } as unknown as Compute;
  const memory = {} as DeviceMemory;
  const step = new ScheduledStep({ compute, weights: memory, gradients: memory }, schedule, [], sequences);
  const dispatches = (record: () => void) => {
    used.dispatches = 0;
    record();
    return used.dispatches;
  };
  return {
    bytes: 4 * used.words,
    forward: dispatches(() => step.forward()),
    backward: dispatches(() => step.backward({ pieces: 1, distinct: 1 } as TokenPlaces)),
  };
}

/** What the step that was written by hand for Llama took, before steps were derived from the description. */
const byHand = {
  llama: { window: 12, sequences: 3, bytes: 34_027_120, forward: 25, backward: 58 },
  mistral: { window: 72, sequences: 1, bytes: 34_641_232, forward: 25, backward: 67 },
};

test.each(Object.entries(byHand))("%s: no more dispatches and bytes than by hand", async (name, limits) => {
  const { spec, parameters } = await modelOf(`test/golden/arch/${name}`);
  const found = counted(spec, parameters, limits.window, limits.sequences);
  expect(found.forward).toBeLessThanOrEqual(limits.forward);
  expect(found.backward).toBeLessThanOrEqual(limits.backward);
  expect(found.bytes).toBeLessThanOrEqual(limits.bytes);
});

test("rooms of gradients are used again: one more block needs no more of them", async () => {
  const { spec, parameters } = await modelOf("test/golden/arch/llama");
  const rooms = (blocks: ModelSpec["blocks"]) => {
    const cut = { ...spec, blocks };
    const { rooms } = decoderSchedule(cut, modelParameters(cut), 12)!;
    return rooms.filter(({ label }) => label.startsWith("gradient")).length;
  };
  expect(parameters.length).toBeGreaterThan(0);
  expect(rooms(spec.blocks)).toBe(rooms(spec.blocks.slice(0, 1)));
});

describe.each(devices)("steps by kernels of our own on %s", (_, device) => {
  beforeAll(() => startEngine("wasm"));

  async function both(
    { spec, parameters }: Pick<Awaited<ReturnType<typeof modelOf>>, "spec" | "parameters">,
    window: number,
    router?: RouterOptions,
  ) {
    const [{ tracedObjective }, { traceModel }] = await Promise.all([
      import("../../src/train/engine/tracedObjective.js"),
      import("../../src/train/trace/trace.js"),
    ]);
    const oracle = tracedObjective(traceModel(spec, parameters, window, { router }));
    const objective = (await deviceDecoder(spec, parameters, window, device, { router }))!;
    open.push(oracle, objective);
    return { oracle, objective };
  }

  function expectEqual(found: LossAndGradients, expected: LossAndGradients) {
    expect(found.loss).toBeCloseTo(expected.loss, 5);
    expect([...found.measured.keys()].sort()).toEqual([...expected.measured.keys()].sort());
    for (const [name, values] of expected.measured)
      expect([name, distance(found.measured.get(name)!, values) < 1e-5]).toEqual([name, true]);
    expect([...found.gradients.keys()].sort()).toEqual([...expected.gradients.keys()].sort());
    const norm = Math.hypot(...Array.from(expected.gradients.values(), (gradient) => Math.hypot(...gradient)));
    for (const [parameter, gradient] of expected.gradients) {
      const own = found.gradients.get(parameter)!;
      // Where the bias of keys moves all scores of a row alike, its gradient is 0 but for rounding.
      const isZero = Math.hypot(...gradient) < 1e-6 * norm;
      const isEqual = isZero ? Math.hypot(...own) < 1e-6 * norm : distance(own, gradient) < 1e-4;
      expect([parameter, isEqual]).toEqual([parameter, true]);
    }
  }

  test("llama: loss, gradients and logits are the engine's", async () => {
    const model = await modelOf("test/golden/arch/llama");
    const { oracle, objective } = await both(model, 12);
    const { spec, weights } = model;
    const batch = randomBatch(spec.vocabSize, 36);
    const found = await objective.lossAndGradients(weights, batch);
    expectEqual(found, await oracle.lossAndGradients(weights, batch));
    expect(await objective.loss(weights, batch)).toBeCloseTo(found.loss, 5);
    expect(distance(await objective.predict(weights, batch), await oracle.predict(weights, batch))).toBeLessThan(1e-5);
    // Another number of sequences, then the first again: buffers are made anew, nothing is left over.
    const other = randomBatch(spec.vocabSize, 48);
    expect((await objective.lossAndGradients(weights, other)).loss).toBeCloseTo(await oracle.loss(weights, other), 5);
    expect((await objective.lossAndGradients(weights, batch)).gradients).toEqual(found.gradients);
  });

  // Each with what is new in it; one block, since the engine compiles slowly.
  test.each([
    ["mistral", 72, "a window"],
    ["qwen2", 12, "biases"],
    ["qwen3", 12, "norms of heads"],
    ["gemma3", 12, "1 + weight, a scaled embedding, norms before sums, geluTanh"],
    ["opt", 12, "layer norms, learned positions from an offset on, relu in place"],
    ["gpt_neox", 12, "two parts side by side, a part of each head turned, gelu"],
  ])("%s, windows of %d: %s", async (name, window) => {
    const { spec: whole, weights } = await modelOf(`test/golden/arch/${name}`);
    const spec = { ...whole, blocks: whole.blocks.slice(0, 1) };
    const { oracle, objective } = await both({ spec, parameters: modelParameters(spec) }, window);
    const batch = randomBatch(spec.vocabSize, 2 * window);
    expectEqual(await objective.lossAndGradients(weights, batch), await oracle.lossAndGradients(weights, batch));
  });

  test.each<[string, number, RouterOptions, string]>([
    ["mixtral", 96, { balance: 0.3, zLoss: 0.02 }, "experts with more rows than a tile"],
    ["olmoe", 12, { balance: 0.3 }, "gates that do not add up to 1"],
    ["qwen3_moe", 4, { routing: "softmax", normalised: false, zLoss: 0.02 }, "experts that nobody chose"],
  ])("%s, windows of %d, routed by %j: %s", async (name, window, router, what) => {
    const { spec: whole, weights } = await modelOf(`test/golden/arch/${name}`);
    const spec = { ...whole, blocks: whole.blocks.slice(0, 1) };
    const { oracle, objective } = await both({ spec, parameters: modelParameters(spec) }, window, router);
    const batch = randomBatch(spec.vocabSize, 2 * window);
    const found = await objective.lossAndGradients(weights, batch);
    expectEqual(found, await oracle.lossAndGradients(weights, batch));
    expect(found.loss).toBeGreaterThan(found.measured.get("prediction")![0]);
    const load = found.measured.get("load.0")!;
    if (what.includes("tile")) expect(Math.max(...load)).toBeGreaterThan(64);
    if (what.includes("nobody")) expect(Math.min(...load)).toBe(0);
  });
});

describe.each(devices)("a run that stays on the device: %s", (_, device) => {
  const steps = 5;
  const window = 8;

  const models = new Map<string, Awaited<ReturnType<typeof modelOf>> & { objective: Objective }>();
  beforeAll(async () => {
    for (const name of ["llama", "mixtral"]) {
      const model = await modelOf(`test/golden/arch/${name}`);
      const router = { balance: 0.1, zLoss: 0.01 };
      const objective = (await deviceDecoder(model.spec, model.parameters, window, device, { router }))!;
      models.set(name, { ...model, objective });
      open.push(objective);
    }
  });

  async function begin(name: string, id: string, options: object, onDevice: boolean) {
    const { method } = await trainMethods[id]();
    const { objective, weights } = models.get(name)!;
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

  test.each<[string, string, object]>([
    ["llama", "dense", {}],
    ["llama", "fixed-mask", { mask: "magnitude" }],
    ["llama", "ste", { pattern: "1:4" }],
    ["llama", "sr-ste", { decay: 0.02, interval: 2 }],
    ["llama", "ast", { decay: 0.02, interval: 2 }],
    ["llama", "cast", { decay: 0.01, interval: 2 }],
    ["llama", "iht", { density: 0.5 }],
    ["mixtral", "sr-ste", { decay: 0.02, interval: 2 }],
  ])(
    "%s, %s %j: weights, masks and moments are the host's, stored and continued as well",
    async (name, id, options) => {
      const { spec } = models.get(name)!;
      const host = await begin(name, id, options, false);
      const whole = await begin(name, id, options, true);
      let halves = await begin(name, id, options, true);
      const random = new Random(8);
      for (let step = 0; step < steps; step++) {
        const batch = randomBatch(spec.vocabSize, window, random.integer(1000));
        const expected = await host.advance(batch);
        // Two magnitudes that are equal but for rounding may be masked the other way round, which moves the loss by 0.001.
        expect((await whole.advance(batch)).loss).toBeCloseTo(expected.loss, 2);
        if (step === 2) {
          await halves.synchronise();
          const files = new Map<string, Uint8Array>();
          await writeState(memorySinks(files), halves.state);
          halves = await begin(name, id, options, true);
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
    },
  );
});

test("a model of which something has no kernel is left to the engine", async () => {
  const hasKernels = async (name: string) => {
    const { spec, parameters } = await modelOf(`test/golden/arch/${name}`);
    return [name, decoderSchedule(spec, parameters, 16) !== undefined];
  };
  for (const name of ["llama3-rope", "phi3", "gpt2", "smollm3"]) expect(await hasKernels(name)).toEqual([name, true]);
  // Caps, sinks and latents.
  for (const name of ["gemma2", "gpt_oss", "deepseek_v3"]) expect(await hasKernels(name)).toEqual([name, false]);
  const mixtral = await modelOf("test/golden/arch/mixtral");
  for (const routing of ["own", "softmax", "bias", "relu"] as const) {
    const schedule = decoderSchedule(mixtral.spec, mixtral.parameters, 16, { router: { routing } });
    expect([routing, schedule !== undefined]).toEqual([routing, routing === "own" || routing === "softmax"]);
  }
  const { spec, parameters } = await modelOf("test/golden/arch/llama");
  expect(decoderSchedule(spec, parameters, 16)).toBeDefined();
  expect(decoderSchedule(spec, parameters, 18)).toBeUndefined();
  // Pairs of low rank in place of a matrix, which the description does not know.
  expect(decoderSchedule(spec, [...parameters, { ...parameters[0], name: "more" }], 16)).toBeUndefined();
  expect(decoderSchedule(spec, parameters.slice(1), 16)).toBeUndefined();
});

test.each([
  ["gpt2", 256],
  ["opt", 256],
])(
  "%s has learned positions, and a window longer than them is left to the engine, which refuses it",
  async (name, most) => {
    const { spec, parameters } = await modelOf(`test/golden/arch/${name}`);
    expect(decoderSchedule(spec, parameters, most)).toBeDefined();
    expect(decoderSchedule(spec, parameters, most + 4)).toBeUndefined();
  },
);
