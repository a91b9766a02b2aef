import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { parseModelConfig } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { type TracedModel, tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { decoder } from "../../src/train/models/decoder.js";
import { decoderParameters } from "../../src/train/models/decoderParameters.js";
import type { Distillation } from "../../src/train/models/distillation.js";
import { encoder } from "../../src/train/models/encoder.js";
import type { EncoderConfig } from "../../src/train/models/encoderParameters.js";
import { mlp } from "../../src/train/models/mlp.js";
import type { MoeConfig } from "../../src/train/models/moeConfig.js";
import type { Batch } from "../../src/train/objective.js";
import type { ParameterInfo } from "../../src/train/values.js";

beforeAll(() => startEngine("cpu"));

interface Case {
  model: TracedModel;
  batch: Batch;
}

const ints = (random: Random, length: number, below: number) =>
  Int32Array.from({ length }, () => 1 + random.integer(below - 1));

function mlpCase(activation: "sigmoid" | "relu", task: "regression" | "classification"): Case {
  const random = new Random(1);
  const input = { shape: [5, 3], values: Float64Array.from({ length: 15 }, () => random.normal()) };
  const batch: Batch =
    task === "regression"
      ? { input, target: { shape: [5], values: Float64Array.from({ length: 5 }, () => random.normal()) } }
      : { input, label: { shape: [5], values: ints(random, 5, 4) } };
  return { model: mlp({ widths: [3, 6, 5, task === "regression" ? 1 : 4], activation, task }), batch };
}

function encoderCase(): Case {
  const config: EncoderConfig = {
    vocabSize: 11,
    length: 6,
    hiddenSize: 8,
    feedForwardSize: 12,
    heads: 2,
    blocks: 1,
    classes: 3,
  };
  const tokens = ints(new Random(2), 12, 11);
  tokens.fill(0, 4, 6);
  const batch = { tokens: { shape: [12], values: tokens }, label: { shape: [2], values: Int32Array.of(2, 0) } };
  return { model: encoder(config), batch };
}

const decoderFields = {
  vocab_size: 13,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 4,
  max_position_embeddings: 16,
  rms_norm_eps: 1e-5,
};

const experts = 3;

/** The tensors of a Mixtral MLP. */
const mixtureTensors = (at: string) => [
  { name: `${at}.block_sparse_moe.gate.weight`, shape: [experts, 8] },
  ...Array.from({ length: experts }, (_, e) => `${at}.block_sparse_moe.experts.${e}`).flatMap((expert) => [
    { name: `${expert}.w1.weight`, shape: [12, 8] },
    { name: `${expert}.w2.weight`, shape: [8, 12] },
    { name: `${expert}.w3.weight`, shape: [12, 8] },
  ]),
];

function decoderCase(fields: Record<string, unknown>, moe?: MoeConfig, distillation?: Distillation): Case {
  const config = parseModelConfig({ ...decoderFields, ...fields }, "config.json");
  const linear = (name: string, rows: number, cols: number) => [
    { name: `${name}.weight`, shape: [rows, cols] },
    ...(fields.attention_bias && name.includes("self_attn") ? [{ name: `${name}.bias`, shape: [rows] }] : []),
  ];
  const block = (at: string) => [
    { name: `${at}.input_layernorm.weight`, shape: [8] },
    ...linear(`${at}.self_attn.q_proj`, 16, 8),
    ...linear(`${at}.self_attn.k_proj`, 8, 8),
    ...linear(`${at}.self_attn.v_proj`, 8, 8),
    ...(config.qkNorm ? ["q_norm", "k_norm"].map((n) => ({ name: `${at}.self_attn.${n}.weight`, shape: [4] })) : []),
    ...linear(`${at}.self_attn.o_proj`, 8, 16),
    { name: `${at}.post_attention_layernorm.weight`, shape: [8] },
    ...(moe === undefined
      ? [
          ...linear(`${at}.mlp.gate_proj`, 12, 8),
          ...linear(`${at}.mlp.up_proj`, 12, 8),
          ...linear(`${at}.mlp.down_proj`, 8, 12),
        ]
      : mixtureTensors(at)),
  ];
  const tensors = [
    { name: "model.embed_tokens.weight", shape: [13, 8] },
    ...Array.from({ length: config.layers }, (_, l) => block(`model.layers.${l}`)).flat(),
    { name: "model.norm.weight", shape: [8] },
    ...(config.tiedEmbeddings ? [] : [{ name: "lm_head.weight", shape: [13, 8] }]),
  ];
  const random = new Random(3);
  const batch = {
    tokens: { shape: [10], values: ints(random, 10, 13) },
    label: { shape: [10], values: ints(random, 10, 13) },
    ...(distillation && {
      teacher: { shape: [10, 13], values: Float64Array.from({ length: 130 }, () => 2 * random.normal()) },
    }),
    ...(moe?.routing === "bias" && { "routerBias.0": { shape: [experts], values: Float64Array.of(0.1, -0.2, 0) } }),
    ...(moe?.routing === "relu" && { routerSparsityWeight: { shape: [], values: Float64Array.of(0.3) } }),
  };
  return { model: decoder(config, decoderParameters(tensors), 5, { moe, distillation }), batch };
}

const cases: Record<string, () => Case> = {
  "MLP, sigmoid, squared error": () => mlpCase("sigmoid", "regression"),
  "MLP, ReLU, cross entropy": () => mlpCase("relu", "classification"),
  "Transformer encoder": encoderCase,
  Llama: () => decoderCase({ model_type: "llama", tie_word_embeddings: true, num_hidden_layers: 2 }),
  "Llama with biases and ReLU²": () => decoderCase({ model_type: "llama", attention_bias: true, hidden_act: "relu2" }),
  "Mistral with a sliding window": () =>
    decoderCase({ model_type: "mistral", sliding_window: 3, hidden_act: "gelu_new" }),
  "Mixtral with balance and z loss": () =>
    decoderCase({ model_type: "llama" }, { experts, expertsPerToken: 2, routing: "softmax", balance: 0.5, zLoss: 0.1 }),
  "Mixture with a bias": () => decoderCase({ model_type: "llama" }, { experts, expertsPerToken: 2, routing: "bias" }),
  "Mixture of one expert a token, gates as they are": () =>
    decoderCase({ model_type: "llama" }, { experts, expertsPerToken: 1, routing: "softmax", normalised: false }),
  ReMoE: () => decoderCase({ model_type: "llama" }, { experts, expertsPerToken: 1, routing: "relu" }),
  "Llama with a teacher": () => decoderCase({ model_type: "llama" }, undefined, { share: 0.6, temperature: 2 }),
  Qwen3: () => decoderCase({ model_type: "qwen3", hidden_act: "relu" }),
};

/** Norms near 1, everything else normal: nothing that happens to cancel. */
function randomWeights(parameters: readonly ParameterInfo[], random: Random) {
  return new Map(
    parameters.map(({ name, shape }) => {
      const offset = name.includes("norm") && name.endsWith("weight") ? 1 : 0;
      const length = shape.reduce((a, b) => a * b, 1);
      return [name, Float64Array.from({ length }, () => offset + 0.3 * random.normal())];
    }),
  );
}

describe.each(Object.entries(cases))("%s", (_name, make) => {
  test("every gradient is the central difference along a random direction, in f64", async () => {
    const { model, batch } = make();
    using objective = tracedObjective(model);
    const random = new Random(4);
    const weights = randomWeights(model.parameters, random);
    const { gradients } = await objective.lossAndGradients(weights, batch);
    const h = 1e-5;
    for (const { name } of model.parameters) {
      const values = weights.get(name)!;
      const start = values.slice();
      const direction = values.map(() => random.normal());
      const lossAt = async (shift: number) => {
        for (let i = 0; i < values.length; i++) values[i] = start[i] + shift * direction[i];
        // `loss` is that of the predictions alone.
        return (await objective.lossAndGradients(weights, batch)).loss;
      };
      const difference = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
      values.set(start);
      const gradient = gradients.get(name)!;
      expect(gradient).toBeInstanceOf(Float64Array);
      const slope = (gradient as Float64Array).reduce((sum, g, i) => sum + g * direction[i], 0);
      expect(Math.abs(slope - difference) / Math.max(1e-3, Math.abs(difference)), name).toBeLessThan(1e-6);
      expect(
        (gradient as Float64Array).some((g) => g !== 0),
        name,
      ).toBe(true);
    }
  });
});
