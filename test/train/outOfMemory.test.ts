import { numpy as np } from "@jax-js/jax";
import { expect, test, vi } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { DeviceError } from "../../src/core/index.js";
import type { Compute, DeviceMemory } from "../../src/kernels/internal.js";
import { deviceDecoder } from "../../src/train/engine/device/deviceDecoder.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import {
  type Batch,
  constant,
  initialWeights,
  modelParameters,
  Training,
  trainMethods,
} from "../../src/train/index.js";
import { randomFor } from "../../src/train/internal.js";
import { cloneValues } from "../../src/train/values.js";

/** How often memory is still given, and what is held. */
const memory = { left: Number.POSITIVE_INFINITY, held: new Set<DeviceMemory>(), disposed: 0 };

vi.mock("../../src/kernels/internal.js", async (importOriginal) => {
  const real = await importOriginal<typeof import("../../src/kernels/internal.js")>();
  const openCompute = async (): Promise<Compute> => {
    const compute = await real.openCompute("wasm", { threads: 1 });
    const allocate = compute.allocate.bind(compute);
    compute.allocate = (words, label) => {
      if (memory.left-- <= 0) throw new DeviceError(`no room for ${label}`);
      const given = allocate(words, label);
      memory.held.add(given);
      return given;
    };
    const { free } = compute.device;
    (compute.device as { free: typeof free }).free = (given) => {
      if (!memory.held.delete(given)) throw new Error("freed twice");
      free(given);
    };
    const dispose = compute[Symbol.dispose].bind(compute);
    compute[Symbol.dispose] = () => {
      memory.disposed++;
      dispose();
    };
    return compute;
  };
  return { ...real, openCompute };
});

const window = 8;
const modelOf = (layers: number) => {
  const spec = readModelSpec(
    {
      ...{ model_type: "llama", vocab_size: 32, hidden_size: 16, intermediate_size: 32, num_hidden_layers: layers },
      ...{ num_attention_heads: 2, num_key_value_heads: 1, head_dim: 8, max_position_embeddings: 32 },
      ...{ rms_norm_eps: 1e-5, tie_word_embeddings: true },
    },
    "config.json",
  );
  const parameters = modelParameters(spec);
  return { spec, parameters, weights: initialWeights(parameters, randomFor(1, "a model"), 0.3) };
};
const student = modelOf(1);
const batchOf = (sequences: number): Batch => {
  const ids = () => ({
    shape: [sequences * window],
    values: Int32Array.from({ length: sequences * window }, (_, i) => (7 * i) % 32),
  });
  return { tokens: ids(), label: ids() };
};
const open = () => {
  const options = { distillation: { share: 0.5, temperature: 2 }, teacher: modelOf(2) };
  return deviceDecoder(student.spec, student.parameters, window, "wasm", options);
};

/** Lets memory end after 0, 1, 2 … pieces, until the work is done without. @returns after how many */
async function endingAnywhere(work: () => Promise<unknown>, after: () => Promise<void>): Promise<number> {
  for (let pieces = 0; ; pieces++) {
    memory.left = pieces;
    const error = await work().then(
      () => undefined,
      (error) => error,
    );
    memory.left = Number.POSITIVE_INFINITY;
    if (error === undefined) return pieces;
    expect(error).toBeInstanceOf(DeviceError);
    await after();
  }
}

test("a batch for which there is no memory takes none, and the next one is computed as if it had never been", async () => {
  using objective = (await open())!;
  const small = batchOf(2);
  const { loss } = await objective.lossAndGradients(student.weights, small);
  const held = memory.held.size;
  const pieces = await endingAnywhere(
    () => objective.lossAndGradients(student.weights, batchOf(5)),
    async () => {
      expect((await objective.lossAndGradients(student.weights, small)).loss).toBe(loss);
      expect(memory.held.size).toBe(held);
    },
  );
  expect(pieces).toBeGreaterThan(20);
});

test("a run that finds no memory gives back what it had taken", async () => {
  using objective = (await open())!;
  const { method } = await trainMethods.iht();
  const begin = () =>
    new Training({
      ...{ objective, onDevice: true, steps: 4, seed: 1, weights: cloneValues(student.weights) },
      optimizer: { rate: constant(1e-2) },
      method: (context) => method.start(context, method.options.parse({})),
    });
  const text = batchOf(2);
  await objective.lossAndGradients(student.weights, text);
  const held = memory.held.size;
  const pieces = await endingAnywhere(
    async () => {
      const training = begin();
      await training.advance(text);
    },
    async () => expect(memory.held.size).toBe(held),
  );
  expect(pieces).toBeGreaterThan(9);
});

test("an objective that finds no memory lets the device go", async () => {
  const before = memory.disposed;
  let failed = 0;
  await endingAnywhere(
    async () => (await open())![Symbol.dispose](),
    async () => {
      failed++;
      expect(memory.disposed - before).toBe(failed);
    },
  );
  expect(failed).toBeGreaterThan(3);
});

test("the engine that traces says what to do about a batch that is too large, and computes the next one", async () => {
  await startEngine("wasm");
  using objective = tracedObjective({
    parameters: [{ name: "w", shape: [1], layer: "0", role: "dense" }],
    predict: ({ w }, { x }) => {
      const square = np.outer(x.ref, x);
      return np.sum(np.matmul(square.ref, square)).mul(w);
    },
    loss: ({ w }) => ({ loss: np.sum(w) }),
  });
  const of = (length: number) => ({ x: { shape: [length], values: new Float32Array(length).fill(1) } });
  const weights = new Map([["w", Float32Array.of(2)]]);
  // 6.4 GB, of which none is written.
  await expect(objective.predict(weights, of(40_000))).rejects.toThrow(/fewer or shorter texts/);
  expect([...(await objective.predict(weights, of(3)))]).toEqual([54]);
});
