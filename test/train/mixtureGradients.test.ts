import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import {
  type FloatArray,
  modelParameters,
  modulesOf,
  routedAdapterMethods,
  routedObjective,
} from "../../src/train/index.js";
import { cloneValues } from "../../src/train/values.js";
import { randomValues } from "../support/adapter.js";

beforeAll(() => startEngine("cpu"));

const fields = {
  vocab_size: 13,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 4,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
  model_type: "llama",
};

const window = 5;
const doubles = (values: FloatArray) => Float64Array.from(values);

describe.each([
  ["molora", ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"], {}],
  ["molora", ["q_proj", "down_proj"], { topK: 2, balance: 0.3 }],
  ["mov", ["k_proj", "v_proj", "down_proj"], {}],
  ["mov", ["k_proj", "down_proj"], { topK: 2, balance: 0.3 }],
] as const)("%s of %j, %j", (kind, targets, given) => {
  test("every gradient is the central difference of the loss that is trained", async () => {
    const spec = readModelSpec(fields, "config.json");
    const parameters = modelParameters(spec);
    const random = new Random(5);
    const frozen = new Map<string, FloatArray>(
      parameters.map(({ name, shape }) => {
        const length = shape.reduce((a, b) => a * b, 1);
        return [name, Float64Array.from({ length }, () => 0.5 * random.normal())];
      }),
    );
    const { method } = await routedAdapterMethods[kind]();
    const options = method.options.parse({ experts: 3, ...(kind === "molora" && { rank: 2 }), ...given });
    const modules = modulesOf(spec, targets);
    using objective = await routedObjective(
      { spec, parameters, frozen, window, device: "cpu" },
      modules,
      method,
      options,
      random,
    );
    const described = Array.from(objective.first, ([name, first]) => ({ name, first }));
    const values = new Map(Array.from(randomValues(described, random), ([name, array]) => [name, doubles(array)]));
    const ids = () => Int32Array.from({ length: 2 * window }, () => random.integer(13));
    const batch = { tokens: { shape: [10], values: ids() }, label: { shape: [10], values: ids() } };
    const { gradients } = await objective.lossAndGradients(values, batch);
    expect([...gradients.keys()].sort()).toEqual([...values.keys()].sort());
    for (const [name, { length }] of values) {
      for (const at of [0, Math.floor(length / 2), length - 1]) {
        const lossAt = async (shift: number) => {
          const moved = cloneValues(values);
          moved.get(name)![at] += shift;
          // With what the balance of experts adds.
          return (await objective.lossAndGradients(moved, batch)).loss;
        };
        const h = 1e-5;
        const difference = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
        const found = gradients.get(name)![at];
        expect(Math.abs(found - difference), `${name} ${at}: ${found} and ${difference}`).toBeLessThan(
          1e-6 + 1e-5 * Math.abs(difference),
        );
      }
    }
  });
});
