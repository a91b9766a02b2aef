import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { parseModelConfig } from "./modelConfig.js";

/** The parts of the configs that transformers 5.17 writes which decide anything. */
const base = {
  vocab_size: 512,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_act: "silu",
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  rope_parameters: { rope_theta: 10000, rope_type: "default" },
  bos_token_id: 1,
  eos_token_id: 2,
  dtype: "float32",
};
const llama = { ...base, model_type: "llama", head_dim: 16, attention_bias: false, mlp_bias: false };
const mistral = { ...base, model_type: "mistral", head_dim: 16, sliding_window: 8 };
const qwen = {
  ...base,
  layer_types: ["full_attention", "full_attention"],
  max_window_layers: 28,
  sliding_window: null,
  use_sliding_window: false,
};
const qwen2 = { ...qwen, model_type: "qwen2" };
const qwen3 = { ...qwen, model_type: "qwen3", head_dim: 16, attention_bias: false };

const parse = (raw: unknown, generation?: unknown) => parseModelConfig(raw, "config.json", generation);
const without = (config: object, ...keys: string[]) =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));

describe("two records of the rotary embedding", () => {
  const both = (rope_scaling: object, rope_parameters: object = { rope_type: "default", rope_theta: 10000 }) =>
    parse({ ...llama, rope_parameters, rope_scaling }).rope;

  it("rope_scaling stands in for rope_parameters, as in transformers 5", () => {
    expect(both({ rope_type: "linear", factor: 4 })).toEqual({ type: "linear", theta: 10000, factor: 4 });
    expect(both({ type: "linear", factor: 4 })).toEqual({ type: "linear", theta: 10000, factor: 4 });
    expect(both({})).toEqual({ type: "default", theta: 10000 });
    const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 128 };
    expect(both(yarn)).toMatchObject({ type: "yarn", theta: 10000, factor: 4 });
    expect(both(yarn)).toEqual(parse({ ...llama, rope_parameters: { ...yarn, rope_theta: 10000 } }).rope);
    expect(() => both({ rope_type: "xpos", factor: 4 })).toThrow(/rope_scaling.rope_type: .*"xpos" is not supported/);
  });

  it("two bases are refused", () => {
    const large = { rope_type: "default", rope_theta: 500000 };
    expect(() => both({ rope_type: "linear", factor: 4 }, large)).toThrow(
      /rope_scaling.rope_theta: rope_parameters has 500000/,
    );
    expect(both({ rope_type: "linear", factor: 4, rope_theta: 500000 }, large)).toMatchObject({ theta: 500000 });
  });
});

it("how weights are stored changes nothing of what a model is", () => {
  expect(parse({ ...llama, quantization_config: { quant_method: "gptq", bits: 4 } })).toEqual(parse(llama));
});

const common = {
  vocabSize: 512,
  hiddenSize: 64,
  intermediateSize: 160,
  layers: 2,
  queryHeads: 4,
  kvHeads: 2,
  headDim: 16,
  maxPositions: 256,
  rmsNormEpsilon: 1e-6,
  rope: { type: "default", theta: 10000 },
  activation: "silu",
  tiedEmbeddings: false,
  attentionBias: false,
  mlpBias: false,
  qkNorm: false,
  blocks: [
    { queryHeads: 4, kvHeads: 2, intermediateSize: 160 },
    { queryHeads: 4, kvHeads: 2, intermediateSize: 160 },
  ],
  slidingWindows: [undefined, undefined],
  bosTokenId: 1,
  eosTokenIds: [2],
};

describe("model config", () => {
  it.each([
    ["llama", llama, { modelType: "llama" }],
    ["mistral", mistral, { modelType: "mistral", slidingWindows: [8, 8] }],
    [
      "mixtral",
      { ...base, model_type: "mixtral", sliding_window: null, num_local_experts: 4, router_aux_loss_coef: 0.02 },
      { modelType: "mixtral", experts: { count: 4, perToken: 2, balance: 0.02 } },
    ],
    ["qwen2", qwen2, { modelType: "qwen2", attentionBias: true }],
    ["qwen3", qwen3, { modelType: "qwen3", qkNorm: true }],
  ])("reads %s", (_, raw, own) => {
    const { spec, ...config } = parse(raw);
    expect(config).toEqual({ ...common, ...own });
    expect(spec.blocks.length).toBe(2);
  });

  it("reads the old spelling: Llama 3.2 1B", () => {
    const raw = {
      architectures: ["LlamaForCausalLM"],
      attention_bias: false,
      bos_token_id: 128000,
      eos_token_id: [128001, 128008, 128009],
      head_dim: 64,
      hidden_act: "silu",
      hidden_size: 2048,
      intermediate_size: 8192,
      max_position_embeddings: 131072,
      mlp_bias: false,
      model_type: "llama",
      num_attention_heads: 32,
      num_hidden_layers: 16,
      num_key_value_heads: 8,
      pretraining_tp: 1,
      rms_norm_eps: 1e-5,
      rope_scaling: {
        factor: 32,
        high_freq_factor: 4,
        low_freq_factor: 1,
        original_max_position_embeddings: 8192,
        rope_type: "llama3",
      },
      rope_theta: 500000,
      tie_word_embeddings: true,
      torch_dtype: "bfloat16",
      vocab_size: 128256,
    };
    expect(parse(raw)).toMatchObject({
      headDim: 64,
      tiedEmbeddings: true,
      rope: {
        type: "llama3",
        theta: 500000,
        factor: 32,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositions: 8192,
      },
      bosTokenId: 128000,
      eosTokenIds: [128001, 128008, 128009],
    });
  });

  it("reads the oldest spelling of a scaled rotary embedding", () => {
    const raw = { ...without(llama, "rope_parameters"), rope_theta: 5000, rope_scaling: { type: "linear", factor: 4 } };
    expect(parse(raw).rope).toEqual({ type: "linear", theta: 5000, factor: 4 });
    expect(parse({ ...raw, rope_scaling: null }).rope).toEqual({ type: "default", theta: 5000 });
    expect(parse(without(llama, "rope_parameters")).rope).toEqual({ type: "default", theta: 10000 });
  });

  it("takes the base of the new spelling before that of the old", () => {
    expect(parse({ ...llama, rope_theta: 7 }).rope).toEqual(common.rope);
  });

  it("fills what is left out or null as transformers does", () => {
    const sparse = (config: object) =>
      parse(
        without(config, "head_dim", "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings"),
      );
    expect(sparse(llama)).toMatchObject({
      headDim: 16,
      maxPositions: 2048,
      rmsNormEpsilon: 1e-6,
      activation: "silu",
      tiedEmbeddings: false,
    });
    expect(sparse(mistral)).toMatchObject({ headDim: 16, maxPositions: 131072 });
    expect(sparse(qwen2)).toMatchObject({ headDim: 16, maxPositions: 32768 });
    expect(sparse(qwen3)).toMatchObject({ headDim: 128, maxPositions: 32768 });
    expect(parse({ ...llama, head_dim: null }).headDim).toBe(16);
    expect(parse({ ...llama, head_dim: 32 }).headDim).toBe(32);
  });

  it("knows what missing key-value heads mean", () => {
    expect(parse(without(llama, "num_key_value_heads")).kvHeads).toBe(4);
    expect(parse({ ...mistral, num_key_value_heads: null }).kvHeads).toBe(4);
    const large = { num_attention_heads: 32, hidden_size: 512 };
    expect(parse({ ...without(mistral, "num_key_value_heads"), ...large }).kvHeads).toBe(8);
    expect(parse({ ...without(qwen2, "num_key_value_heads"), ...large }).kvHeads).toBe(32);
  });

  it("reads biases where the architecture has them", () => {
    const biased = { attention_bias: true, mlp_bias: true };
    expect(parse({ ...llama, ...biased })).toMatchObject({ attentionBias: true, mlpBias: true });
    expect(parse({ ...mistral, ...biased })).toMatchObject({ attentionBias: false, mlpBias: false });
    expect(parse({ ...qwen2, attention_bias: false })).toMatchObject({ attentionBias: true, mlpBias: false });
    expect(parse({ ...qwen3, ...biased })).toMatchObject({ attentionBias: true, mlpBias: false });
  });

  it("reads sliding windows", () => {
    const windows = (config: object) => parse(config).slidingWindows;
    expect(windows({ ...llama, sliding_window: 8 })).toEqual([undefined, undefined]);
    expect(windows({ ...mistral, sliding_window: null })).toEqual([undefined, undefined]);
    expect(windows(without(mistral, "sliding_window"))).toEqual([4096, 4096]);
    const on = { ...without(qwen2, "layer_types"), use_sliding_window: true, sliding_window: 8, max_window_layers: 1 };
    expect(windows(on)).toEqual([undefined, 8]);
    expect(windows({ ...on, use_sliding_window: false })).toEqual([undefined, undefined]);
    expect(windows({ ...on, sliding_window: null })).toEqual([undefined, undefined]);
    expect(windows(without(on, "max_window_layers"))).toEqual([undefined, undefined]);
    expect(windows({ ...on, layer_types: ["sliding_attention", "full_attention"] })).toEqual([8, undefined]);
  });

  it("reads token ids, the generation config first", () => {
    const eos = (config: object, generation?: unknown) => parse(config, generation).eosTokenIds;
    expect(eos({ ...llama, eos_token_id: [2, 3] })).toEqual([2, 3]);
    expect(eos(llama, { eos_token_id: [5, 6] })).toEqual([5, 6]);
    expect(eos(llama, { eos_token_id: 7 })).toEqual([7]);
    expect(eos(llama, { temperature: 0.6 })).toEqual([2]);
    expect(eos({ ...llama, eos_token_id: null })).toEqual([]);
    expect(eos(without(llama, "eos_token_id"))).toEqual([2]);
    expect(eos(without(qwen2, "eos_token_id"))).toEqual([]);
    expect(eos({ ...llama, eos_token_id: [-1, 2, 512] })).toEqual([2]);
    expect(parse({ ...llama, bos_token_id: null }).bosTokenId).toBeUndefined();
    expect(parse({ ...llama, bos_token_id: -1 }).bosTokenId).toBeUndefined();
    expect(parse(without(llama, "bos_token_id")).bosTokenId).toBe(1);
  });

  it.each([
    ["silu", "silu"],
    ["relu", "relu"],
    ["gelu", "gelu"],
    ["gelu_pytorch_tanh", "geluTanh"],
    ["relu2", "relu2"],
    ["drelu", "relu"],
  ])("maps hidden_act %s", (name, activation) => {
    expect(parse({ ...llama, hidden_act: name }).activation).toBe(activation);
  });

  const wrong: [string, object | null, RegExp][] = [
    ["no object", null, /config.json: .*object/],
    ["no model type", without(llama, "model_type"), /model_type/],
    [
      "another model type",
      { ...llama, model_type: "t5" },
      /model_type: .*"t5".*one of llama, mistral, mixtral, qwen2, qwen3/,
    ],
    ["a model type of the prototype", { ...llama, model_type: "constructor" }, /"constructor" is not supported/],
    [
      "another rotary embedding",
      { ...llama, rope_parameters: { rope_type: "xpos" } },
      /"xpos".*default, linear, dynamic, yarn, longrope/,
    ],
    ["half a rotary embedding", { ...llama, rope_parameters: { rope_type: "llama3" } }, /rope_parameters.*factor/],
    ["a partial rotary embedding", { ...llama, partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    ["another activation", { ...llama, hidden_act: "snake" }, /hidden_act: .*"snake"/],
    ["a billion layers", { ...llama, num_hidden_layers: 1e9 }, /num_hidden_layers: .*4096/],
    ["no layers", { ...llama, num_hidden_layers: 0 }, /num_hidden_layers/],
    ["half a layer", { ...llama, num_hidden_layers: 1.5 }, /num_hidden_layers/],
    ["a huge vocabulary", { ...llama, vocab_size: 1e12 }, /vocab_size/],
    ["a size as text", { ...llama, hidden_size: "64" }, /hidden_size/],
    ["no size", without(llama, "intermediate_size"), /intermediate_size/],
    ["heads that do not divide", { ...llama, num_key_value_heads: 3 }, /num_key_value_heads: 3 for 4.*divisor/],
    ["a hidden size that does not divide", { ...without(llama, "head_dim"), hidden_size: 66 }, /hidden_size: size 66/],
    [
      "more experts for a token than there are",
      { ...llama, model_type: "mixtral", num_local_experts: 2, num_experts_per_tok: 3 },
      /num_experts_per_tok: 3 of 2 experts/,
    ],
    ["a million experts", { ...llama, model_type: "mixtral", num_local_experts: 1e6 }, /num_local_experts/],
    ["an odd head", { ...llama, head_dim: 15 }, /head_dim: size 15.*even/],
    ["too few layer types", { ...qwen2, layer_types: ["full_attention"] }, /layer_types: 1 entries/],
    ["unknown layer types", { ...qwen2, layer_types: ["linear_attention", "full_attention"] }, /layer_types.0/],
    ["a negative epsilon", { ...llama, rms_norm_eps: -1 }, /rms_norm_eps/],
  ];
  it.each(wrong)("refuses %s", (_, raw, message) => {
    expect(() => parse(raw)).toThrow(FormatError);
    expect(() => parse(raw)).toThrow(message);
  });

  it("refuses a wrong generation config by its own name", () => {
    expect(() => parse(llama, { eos_token_id: "x" })).toThrow(/^generation_config.json: eos_token_id/);
  });

  it("takes the sizes of blocks from rarefy.json", () => {
    const blocks = [
      { queryHeads: 2, kvHeads: 1, intermediateSize: 96 },
      { queryHeads: 4, kvHeads: 2, intermediateSize: 160 },
    ];
    const parsed = parseModelConfig(llama, "config.json", undefined, blocks);
    expect(parsed.blocks).toEqual(blocks);
    expect(parsed).toMatchObject({ queryHeads: 4, intermediateSize: 160 });
    expect(() => parseModelConfig(llama, "c", undefined, blocks.slice(1))).toThrow(
      /rarefy.json: blocks: 1 entries; expected 2/,
    );
    expect(() => parseModelConfig(llama, "c", undefined, [{ ...blocks[0], kvHeads: 4 }, blocks[1]])).toThrow(
      /blocks.0.kvHeads/,
    );
  });
});
