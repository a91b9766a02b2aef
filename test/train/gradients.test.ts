import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import {
  type BlockGates,
  type LinearSpec,
  type ModelSpec,
  type NormSpec,
  parseModelConfig,
  type RouterSpec,
  readModelSpec,
  type Step,
  stepsOf,
} from "../../src/arch/index.js";
import { withLayerGates } from "../../src/arch/internal.js";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { type TracedModel, tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { alphaSigmoidTable } from "../../src/train/models/alphaSigmoid.js";
import type { ClusterOptions } from "../../src/train/models/clusterOptions.js";
import { contextWeightName, sigmoidName, sigmoidPerUnitName } from "../../src/train/models/contextNames.js";
import { hardName, noiseName } from "../../src/train/models/controllers.js";
import { encoder } from "../../src/train/models/encoder.js";
import type { EncoderConfig } from "../../src/train/models/encoderParameters.js";
import { gateTargetName, gateWeightName } from "../../src/train/models/gateNames.js";
import type { Matching } from "../../src/train/models/matchingOptions.js";
import { mlp } from "../../src/train/models/mlp.js";
import { modelParameters } from "../../src/train/models/parameters.js";
import type { RouterOptions } from "../../src/train/models/routerOptions.js";
import type { Batch } from "../../src/train/objective.js";
import { fillingName, fillingOf } from "../../src/train/trace/filling.js";
import type { TraceOptions } from "../../src/train/trace/options.js";
import { stepTracers } from "../../src/train/trace/steps.js";
import { traceModel } from "../../src/train/trace/trace.js";
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

/** Centroids for blocks of one clustered head. */
const centroidsOf = (random: Random, clusters: number, width: number) => ({
  shape: [1, clusters, width],
  values: Float64Array.from({ length: clusters * width }, () => random.normal()),
});

function encoderCase(clusters?: ClusterOptions): Case {
  const config: EncoderConfig = {
    vocabSize: 11,
    length: 6,
    hiddenSize: 8,
    feedForwardSize: 12,
    heads: 2,
    blocks: 1,
    classes: 3,
    clusters,
  };
  const tokens = ints(new Random(2), 12, 11);
  tokens.fill(0, 4, 6);
  const batch = {
    tokens: { shape: [12], values: tokens },
    label: { shape: [2], values: Int32Array.of(2, 0) },
    ...(clusters && { "centroids.0": centroidsOf(new Random(5), 2, 4) }),
  };
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
const mixtral = { ...decoderFields, model_type: "mixtral", num_local_experts: 3, num_experts_per_tok: 2 };

/** A block of a teacher of other widths than the student's. */
const teacherWidths = { stream: 6, q: 8, k: 4, v: 4 } as const;

function modelCase(
  spec: ModelSpec,
  { distillation, router, matching, masked, clusters }: TraceOptions = {},
): Case & { spec: ModelSpec } {
  const random = new Random(3);
  const window = clusters ? 6 : 5;
  const rows = 2 * window;
  const batch = {
    tokens: { shape: [rows], values: ints(random, rows, 13) },
    label: { shape: [rows], values: ints(random, rows, 13).map((id, i) => (masked && i % 3 === 0 ? -1 : id)) },
    ...(distillation && {
      teacher: { shape: [10, 13], values: Float64Array.from({ length: 130 }, () => 2 * random.normal()) },
    }),
    ...(matching &&
      Object.fromEntries(
        Object.entries(teacherWidths).map(([kind, width]) => [
          `teacher.${kind}.2`,
          { shape: [10, width], values: Float64Array.from({ length: 10 * width }, () => random.normal()) },
        ]),
      )),
    ...(router?.routing === "bias" && { "routerBias.0": { shape: [3], values: Float64Array.of(0.1, -0.2, 0) } }),
    ...(clusters && { "centroids.0": centroidsOf(new Random(5), clusters.clusters!, 4) }),
    ...(router?.routing === "relu" && { routerSparsityWeight: { shape: [], values: Float64Array.of(0.3) } }),
  };
  const model = traceModel(spec, modelParameters(spec), window, { router, distillation, matching, masked, clusters });
  return { spec, model, batch };
}

const matching: Matching = {
  ...{ hidden: 0.7, relations: 3, relationHeads: 2, relative: true },
  layers: [[0, 2]],
  width: { student: 8, teacher: teacherWidths.stream },
};

const decoderCase = (fields: Record<string, unknown>, options?: TraceOptions) =>
  modelCase(readModelSpec({ ...decoderFields, ...fields }, "config.json"), options);

const mixtureCase = (router: RouterOptions, perToken = 2, described: Partial<RouterSpec> = {}) => {
  const spec = readModelSpec({ ...mixtral, num_experts_per_tok: perToken }, "config.json");
  const steps = spec.blocks[0].steps.map((step) =>
    step.do === "mixture" ? { ...step, router: { ...step.router, ...described } } : step,
  );
  return modelCase({ ...spec, blocks: [{ steps }] }, { router });
};

/** An encoder that classifies whole texts, one of them filled up. */
function classifierCase() {
  const spec = readModelSpec(
    {
      ...{ model_type: "bert", architectures: ["BertForSequenceClassification"], vocab_size: 13, hidden_size: 8 },
      ...{ intermediate_size: 12, num_hidden_layers: 2, num_attention_heads: 2, max_position_embeddings: 8 },
    },
    "config.json",
  );
  const filling = fillingOf(Uint32Array.of(5, 3), 5);
  const batch = {
    tokens: { shape: [10], values: ints(new Random(4), 10, 13) },
    label: { shape: [2], values: Int32Array.of(1, 0) },
    teacher: { shape: [2, 2], values: Float64Array.of(0.3, -1, 2, 0.5) },
    [fillingName]: { ...filling, values: Float64Array.from(filling.values) },
  };
  const distillation = { share: 0.5, temperature: 1 };
  return { spec, model: traceModel(spec, modelParameters(spec), 5, { classifies: true, distillation }), batch };
}

/** Interactions of which some are within the reach of σ_α, and some beyond. */
function contextCase(fields: Record<string, unknown>, alpha: number, sinks = false) {
  const config = { ...decoderFields, ...fields };
  const { num_attention_heads: queryHeads, num_key_value_heads: kvHeads, intermediate_size: intermediateSize } = config;
  const spec = readModelSpec(config, "config.json", undefined, [
    { queryHeads, kvHeads, intermediateSize, contextRank: 4 },
  ]);
  const steps = spec.blocks[0].steps.map((step) =>
    step.do === "attend" && sinks ? { ...step, sinks: { tensor: "sinks", shape: [queryHeads] } } : step,
  );
  const made = modelCase({ ...spec, blocks: [{ steps }] });
  const { values, perUnit } = alphaSigmoidTable(alpha, 33);
  const batch = {
    ...made.batch,
    [sigmoidName]: { shape: [33], values: Float64Array.from(values) },
    [sigmoidPerUnitName]: { shape: [], values: Float64Array.of(perUnit) },
    [contextWeightName]: { shape: [], values: Float64Array.of(0.7) },
  };
  return { ...made, batch };
}

/** What a layer adds weighed by a router; a router that lets tokens past is in layerGates.test.ts. */
const weighedCase = (units: BlockGates["units"]) => {
  const config = parseModelConfig({ ...decoderFields, model_type: "llama", num_hidden_layers: 2 }, "config.json");
  const made = modelCase(withLayerGates(config, { units, kind: "soft" }).spec);
  const scalar = (value: number) => ({ shape: [], values: Float64Array.of(value) });
  return { ...made, batch: { ...made.batch, [gateTargetName]: scalar(0.3), [gateWeightName]: scalar(2) } };
};

/** What no family of the table has yet, in one block: keys of two parts, neighbours that turn, sinks, a clamped gate, caps. */
function oddCase() {
  const vector = (name: string, ...shape: number[]) => ({ tensor: name, shape });
  const map = (role: string, rows: number, cols: number, bias = true): LinearSpec => ({
    ...{ id: role, role, rows, cols, weight: vector(`${role}.weight`, rows, cols) },
    ...(bias && { bias: vector(`${role}.bias`, rows) }),
  });
  const norm = (name: string, width: number, kind: "rms" | "layer", more: Partial<NormSpec> = {}): NormSpec => ({
    ...{ kind, weight: vector(`${name}_norm.weight`, width), epsilon: 1e-5, ...more },
  });
  const site = (width: number) => ({ id: `site${width}`, width });
  const rope = { type: "default", theta: 100 } as const;
  const turned = { do: "rotate", rope, width: 2, pairs: "neighbours" } as const;
  const steps: Step[] = [
    { do: "norm", norm: norm("a", 8, "layer", { bias: vector("a_norm.bias", 8) }), of: "x", into: "normed" },
    {
      ...{ do: "linear", of: "normed", site: site(8) },
      maps: [
        { map: map("q", 12, 8), into: "q" },
        { map: map("kPlain", 8, 8), into: "kPlain" },
        { map: map("kTurned", 2, 8), into: "kTurned" },
        { map: map("v", 6, 8), into: "v" },
      ],
    },
    { ...turned, of: ["q"], every: 6, first: 4 },
    { ...turned, of: ["kTurned"], every: 2, first: 0 },
    {
      ...{ do: "join", heads: 2, into: "k" },
      of: [
        { buffer: "kPlain", width: 4, heads: 2 },
        { buffer: "kTurned", width: 2, heads: 1 },
      ],
    },
    { do: "cap", of: "q", kind: "hard", cap: 0.7 },
    { do: "cap", of: "v", kind: "soft", cap: 1.5 },
    {
      ...{ do: "attend", q: "q", k: "k", v: "v", into: "attended", heads: 2, kv: { heads: 2, k: 6, v: 3 } },
      ...{ scale: 0.4, sight: { kind: "all" }, softcap: 2, sinks: vector("sinks", 2) },
    },
    { do: "linear", of: "attended", site: site(6), maps: [{ map: map("o", 8, 6), into: "x" }], add: true },
    { do: "norm", norm: norm("b", 8, "rms", { plusOne: true }), of: "x", into: "normed" },
    {
      ...{ do: "linear", of: "normed", site: site(8) },
      maps: [
        { map: map("gate", 12, 8), into: "gate" },
        { map: map("up", 12, 8), into: "up" },
      ],
    },
    { do: "activate", f: "silu", of: "gate", times: "up", into: "gate", clamped: { limit: 0.5, sharpness: 1.7 } },
    { do: "linear", of: "gate", site: site(12), maps: [{ map: map("down", 8, 12), into: "out" }] },
    { do: "norm", norm: norm("c", 4, "rms"), of: "out", into: "out" },
    { do: "add", of: "out", into: "x" },
  ];
  return modelCase({
    ...{ modelType: "odd", hiddenSize: 8, vocabSize: 13, maxPositions: 8, eosTokenIds: [] },
    embedding: {
      table: vector("table.weight", 13, 8),
      scale: 1.5,
      positions: { table: vector("positions.weight", 7, 8), offset: 2 },
      types: vector("types.weight", 2, 8),
      norm: norm("embedding", 8, "layer"),
    },
    blocks: [{ steps }],
    finalNorm: norm("final", 8, "layer"),
    head: { kind: "vocabulary", map: map("head", 13, 8), softcap: 3 },
  });
}

/** Units work by their shares: a hard choice has no central difference. */
function controlledCase(attention: string) {
  const made = decoderCase({
    ...{ model_type: "terraformer", num_attention_heads: 2, num_hidden_layers: 2 },
    ...{ attention_layers: attention, controller_block: 3, controller_rank: 4 },
  });
  const random = new Random(7);
  const noise = Float64Array.from({ length: 2 * 10 * 12 }, () => 0.1 * random.normal());
  const batch = {
    ...made.batch,
    [noiseName]: { shape: [2, 10, 12], values: noise },
    [hardName]: { shape: [1], values: Float64Array.of(0) },
  };
  return { ...made, batch };
}

const models: Record<string, () => ReturnType<typeof modelCase>> = {
  Llama: () => decoderCase({ model_type: "llama", tie_word_embeddings: true, num_hidden_layers: 2 }),
  "Llama with biases and ReLU²": () => decoderCase({ model_type: "llama", attention_bias: true, hidden_act: "relu2" }),
  "Llama with ReLU on both halves of its MLP": () => decoderCase({ model_type: "llama", hidden_act: "drelu" }),
  "Llama with GELU": () => decoderCase({ model_type: "llama", hidden_act: "gelu" }),
  "Mistral with a sliding window": () =>
    decoderCase({ model_type: "mistral", sliding_window: 3, hidden_act: "gelu_new" }),
  "Mixtral with balance and z loss": () => mixtureCase({ balance: 0.5, zLoss: 0.1 }),
  "Mixture with a bias": () => mixtureCase({ routing: "bias" }),
  "Mixture of one expert a token, gates as they are": () => mixtureCase({ routing: "softmax", normalised: false }, 1),
  ReMoE: () => mixtureCase({ routing: "relu" }, 1),
  "Mixture that chooses first": () => mixtureCase({}, 2, { choiceFirst: true, normalise: false, factor: 1.5 }),
  "Llama with a teacher": () => decoderCase({ model_type: "llama" }, { distillation: { share: 0.6, temperature: 2 } }),
  "Llama with a teacher, KL reversed": () =>
    decoderCase({ model_type: "llama" }, { distillation: { share: 1, temperature: 2, loss: "reverse-kl" } }),
  "Llama with a teacher, logits": () =>
    decoderCase({ model_type: "llama" }, { distillation: { share: 1, temperature: 1, loss: "logits" } }),
  "Llama with a teacher, records": () =>
    decoderCase({ model_type: "llama" }, { distillation: { share: 0.7, temperature: 1.5 }, masked: true }),
  "Llama, matched with a teacher of another width": () => decoderCase({ model_type: "llama" }, { matching }),
  "Llama, matched as the states are, and predicting alike": () =>
    decoderCase(
      { model_type: "llama" },
      { matching: { ...matching, relations: 0, relative: false }, distillation: { share: 0.5, temperature: 1 } },
    ),
  "Llama with attention to the nearest centroid": () =>
    decoderCase(
      { model_type: "llama", num_attention_heads: 2, num_key_value_heads: 2 },
      { clusters: { kind: "nearest", clusters: 2, localHeads: 1 } },
    ),
  Qwen3: () => decoderCase({ model_type: "qwen3", hidden_act: "relu" }),
  "Phi-3, of a part of each head": () =>
    decoderCase({ model_type: "phi3", rope_scaling: null, partial_rotary_factor: 0.5, pad_token_id: 0 }),
  "Gemma 2": () => decoderCase({ model_type: "gemma2", hidden_activation: "gelu_pytorch_tanh" }),
  "GPT-2": () =>
    modelCase(
      readModelSpec(
        { model_type: "gpt2", vocab_size: 13, n_embd: 8, n_layer: 1, n_head: 2, n_inner: 12, n_positions: 8 },
        "config.json",
      ),
    ),
  "Llama that prunes its context, α 1.2": () => contextCase({ model_type: "llama" }, 1.2),
  "Mistral with a sliding window that prunes its context, α 2": () =>
    contextCase({ model_type: "mistral", sliding_window: 3 }, 2),
  "Llama with sinks that prunes its context, α 1": () => contextCase({ model_type: "llama" }, 1, true),
  "Llama whose blocks are weighed": () => weighedCase("block"),
  "Llama whose attention and MLPs are weighed": () => weighedCase("sublayers"),
  "Terraformer, multiplicative, controllers by shares": () => controlledCase("multiplicative"),
  "Terraformer, convolutional, controllers by shares": () => controlledCase("convolutional"),
  "what no family has yet": oddCase,
};

const cases: Record<string, () => Case> = {
  "a classifier": classifierCase,
  "MLP, sigmoid, squared error": () => mlpCase("sigmoid", "regression"),
  "MLP, ReLU, cross entropy": () => mlpCase("relu", "classification"),
  "Transformer encoder": () => encoderCase(),
  "Transformer encoder with routing": () => encoderCase({ kind: "routing", clusters: 2, localHeads: 1 }),
  ...models,
};

test("every kind of step is in a case", () => {
  const kinds = Object.values(models).flatMap((make) =>
    make().spec.blocks.flatMap((block) => [...stepsOf(block)].map((step) => step.do)),
  );
  expect([...new Set(kinds)].sort()).toEqual(Object.keys(stepTracers).sort());
});

/** Norms near 1, everything else normal: nothing that happens to cancel. */
function randomWeights(parameters: readonly ParameterInfo[], random: Random) {
  return new Map(
    parameters.map(({ name, shape }) => {
      const offset = /norm|ln_/.test(name) && name.endsWith("weight") ? 1 : 0;
      const length = shape.reduce((a, b) => a * b, 1);
      return [name, Float64Array.from({ length }, () => offset + 0.3 * random.normal())];
    }),
  );
}

/** The engine's error function is a polynomial, its derivative is exact. */
const tolerances: Readonly<Record<string, number>> = { "Llama with GELU": 1e-4 };

describe.each(Object.entries(cases))("%s", (name, make) => {
  test("gradients are the central difference along a random direction of all weights, in f64", async () => {
    const { model, batch } = make();
    using objective = tracedObjective(model);
    const random = new Random(4);
    const weights = randomWeights(model.parameters, random);
    const { gradients } = await objective.lossAndGradients(weights, batch);
    let slope = 0;
    const directions = new Map<string, Float64Array>();
    for (const { name } of model.parameters) {
      const gradient = gradients.get(name) as Float64Array;
      expect(gradient).toBeInstanceOf(Float64Array);
      // That of a bias of keys is 0 but for rounding.
      const size = Math.max(1e-3, Math.hypot(...gradient));
      expect(
        gradient.some((g) => g !== 0),
        name,
      ).toBe(true);
      // Along the gradient, so that every parameter contributes as much, and a little aside at random.
      const aside = 1 / Math.sqrt(gradient.length);
      const direction = gradient.map((g) => (g / size + aside * random.normal()) / size);
      directions.set(name, direction);
      slope += gradient.reduce((sum, g, i) => sum + g * direction[i], 0);
    }
    const lossAt = async (shift: number) => {
      const moved = new Map<string, Float64Array>();
      for (const [name, values] of weights) {
        const direction = directions.get(name)!;
        moved.set(
          name,
          values.map((value, i) => value + shift * direction[i]),
        );
      }
      // `loss` is that of the predictions alone.
      return (await objective.lossAndGradients(moved, batch)).loss;
    };
    const h = 1e-6;
    const difference = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
    expect(Math.abs(slope - difference) / Math.abs(difference)).toBeLessThan(tolerances[name] ?? 1e-6);
  });
});
