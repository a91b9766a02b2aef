// Small models, right ones, in every container that is read: what the mutations start from.

import { byteSymbols, specialToken } from "../byte-level.mjs";

export const sizes = { hidden: 16, intermediate: 24, heads: 2, kvHeads: 1, headDim: 8 };
const { hidden, intermediate, heads, kvHeads, headDim } = sizes;
const alphabet = byteSymbols();
const merges = ["Ġ t", "h e", "Ġt he", "o f"];
const tokens = ["<s>", "</s>", ...alphabet, ...merges.map((merge) => merge.replace(" ", ""))];

export const tokenizer = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [specialToken("<s>", 0), specialToken("</s>", 1)],
  normalizer: {
    type: "Sequence",
    normalizers: [{ type: "NFC" }, { type: "Replace", pattern: { String: "``" }, content: '"' }],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+" },
        behavior: "Isolated",
        invert: false,
      },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }],
    special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
  },
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    merges,
  },
};

export const tokenizerConfig = {
  tokenizer_class: "PreTrainedTokenizerFast",
  bos_token: "<s>",
  eos_token: { content: "</s>" },
  clean_up_tokenization_spaces: false,
  chat_template:
    "{%- for m in messages if m.role != 'system' %}{{ '<s>' + m['role'] | upper }}: {{ m.content.strip() }}{% if not loop.last %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}{{ eos_token }}{% endif %}{% set x = namespace(a=1) %}",
};

const vocab = tokens.length;
const base = {
  vocab_size: vocab,
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: 1,
  num_attention_heads: heads,
  num_key_value_heads: kvHeads,
  head_dim: headDim,
  hidden_act: "silu",
  max_position_embeddings: 64,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  rope_parameters: { rope_theta: 10000, rope_type: "default" },
  bos_token_id: 0,
  eos_token_id: 1,
};

/** A config.json per family, with the fields that it reads. */
export const configs = [
  { ...base, model_type: "llama", attention_bias: false, mlp_bias: false },
  {
    ...base,
    model_type: "llama",
    rope_parameters: null,
    rope_theta: 500000,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
    },
  },
  { ...base, model_type: "mistral", sliding_window: 8 },
  {
    ...base,
    model_type: "mixtral",
    num_local_experts: 2,
    num_experts_per_tok: 1,
    router_aux_loss_coef: 0.01,
    sliding_window: null,
  },
  {
    ...base,
    model_type: "qwen2",
    use_sliding_window: true,
    max_window_layers: 0,
    sliding_window: 8,
    layer_types: ["sliding_attention"],
  },
  { ...base, model_type: "qwen3", attention_bias: false },
  {
    ...base,
    model_type: "gemma2",
    head_dim: 8,
    query_pre_attn_scalar: 8,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
    hidden_activation: "gelu_pytorch_tanh",
  },
  {
    ...base,
    model_type: "deepseek_v3",
    n_routed_experts: 4,
    n_shared_experts: 1,
    q_lora_rank: 4,
    kv_lora_rank: 4,
    qk_rope_head_dim: 4,
    qk_nope_head_dim: 4,
    v_head_dim: 4,
    first_k_dense_replace: 0,
    moe_intermediate_size: 8,
    n_group: 2,
    topk_group: 1,
    routed_scaling_factor: 2.5,
    scoring_func: "sigmoid",
    topk_method: "noaux_tc",
    num_experts_per_tok: 2,
  },
  { ...base, model_type: "phi3", rope_scaling: null, partial_rotary_factor: 0.5, original_max_position_embeddings: 32 },
];

export const generation = { bos_token_id: 0, eos_token_id: [1, 2], do_sample: true, temperature: 0.6, top_p: 0.9 };

/** Name → shape and f32 values of the first config's tensors. */
function plainTensors() {
  const all = new Map();
  let state = 1;
  const next = () => {
    state = (state * 48271) % 2147483647;
    return (state / 2147483647 - 0.5) / 4;
  };
  const add = (name, ...shape) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, next);
    all.set(name, { dtype: "F32", shape, bytes: Buffer.from(values.buffer) });
  };
  add("model.embed_tokens.weight", vocab, hidden);
  add("lm_head.weight", vocab, hidden);
  add("model.norm.weight", hidden);
  const layer = "model.layers.0.";
  for (const norm of ["input_layernorm", "post_attention_layernorm"]) add(`${layer}${norm}.weight`, hidden);
  for (const [name, rows, cols] of [
    ["self_attn.q_proj", heads * headDim, hidden],
    ["self_attn.k_proj", kvHeads * headDim, hidden],
    ["self_attn.v_proj", kvHeads * headDim, hidden],
    ["self_attn.o_proj", hidden, heads * headDim],
    ["mlp.gate_proj", intermediate, hidden],
    ["mlp.up_proj", intermediate, hidden],
    ["mlp.down_proj", hidden, intermediate],
  ])
    add(`${layer}${name}.weight`, rows, cols);
  return all;
}

export const plain = plainTensors();
const matrix = "model.layers.0.mlp.up_proj";
const [rows, cols] = [intermediate, hidden];
const half = (count) => ({ dtype: "F16", bytes: Buffer.alloc(2 * count, Buffer.from([0, 0x34])) });
const int64s = (values) => Buffer.from(BigInt64Array.from(values, BigInt).buffer);

const without = (name, parts) => new Map([...[...plain].filter(([key]) => key !== name), ...Object.entries(parts)]);

/** The same model with one matrix as compressed-tensors stores it. */
export const compressedTensors = {
  config: {
    ...configs[0],
    quantization_config: {
      config_groups: {},
      format: "dense",
      quant_method: "compressed-tensors",
      sparsity_config: { format: "sparse-bitmask", global_sparsity: 0.5, targets: ["Linear"] },
    },
  },
  tensors: without(`${matrix}.weight`, {
    [`${matrix}.compressed`]: { ...half(rows * 8), shape: [rows * 8] },
    [`${matrix}.bitmask`]: { dtype: "U8", shape: [rows, 2], bytes: Buffer.alloc(rows * 2, 0x0f) },
    [`${matrix}.shape`]: { dtype: "I64", shape: [2], bytes: int64s([rows, cols]) },
    [`${matrix}.row_offsets`]: {
      dtype: "I64",
      shape: [rows],
      bytes: int64s(Array.from({ length: rows }, (_, r) => r * 8)),
    },
  }),
};

/** And as rarefy.json declares it. */
export const packed = {
  artifact: {
    rarefy: 1,
    weights: "bf16",
    tensors: {
      [`${matrix}.weight`]: {
        encoding: "grid",
        dtype: "F32",
        shape: [rows, cols],
        grid: { bits: 4, groupSize: 8, symmetric: true, scaleDType: "F16" },
      },
      "model.layers.0.mlp.down_proj.weight": { encoding: "24-bitmask", dtype: "F16", shape: [hidden, intermediate] },
    },
    recipe: { version: 1, stages: [{ type: "prune", method: "wanda", sparsity: 0.5 }] },
    source: { location: "models/x", configSha256: "0".repeat(64) },
    results: [{ model: "x", weights: "bf16", activationSparsity: 0, perplexity: 30, bytesOnDisk: 1000 }],
  },
  tensors: new Map([
    ...[
      ...without(`${matrix}.weight`, {
        [`${matrix}.weight.codes`]: {
          dtype: "U8",
          shape: [rows, cols / 2],
          bytes: Buffer.alloc((rows * cols) / 2, 0x97),
        },
        [`${matrix}.weight.scales`]: { ...half(rows * 2), shape: [rows, 2] },
        "model.layers.0.mlp.down_proj.weight.bitmask": {
          dtype: "U8",
          shape: [hidden, 3],
          bytes: Buffer.alloc(hidden * 3, 0x33),
        },
        "model.layers.0.mlp.down_proj.weight.values": { ...half(hidden * 12), shape: [hidden, 12] },
      }),
    ].filter(([name]) => name !== "model.layers.0.mlp.down_proj.weight"),
  ]),
};

const floats = (...shape) => ({ dtype: "F32", shape, bytes: Buffer.alloc(shape.reduce((all, size) => all * size, 4)) });

/** Matrices as factors: a train with dense rows, and an embedding of morphemes. */
export const factored = {
  artifact: {
    rarefy: 2,
    tensors: {
      "model.layers.0.mlp.down_proj.weight": {
        encoding: "factors",
        dtype: "F32",
        shape: [hidden, intermediate],
        values: "F32",
        factors: {
          kind: "tensor-train",
          rowModes: [2, (hidden - 4) / 2],
          colModes: [4, intermediate / 4],
          ranks: [3],
          dense: { first: 4, rows: 4 },
        },
      },
      "model.embed_tokens.weight": {
        encoding: "factors",
        dtype: "F32",
        shape: [vocab, hidden],
        values: "F32",
        factors: { kind: "morphemes", order: 2, morphemes: 5, width: hidden, rank: 2, norm: true },
      },
    },
  },
  tensors: new Map(
    [
      ...without("model.embed_tokens.weight", {
        "model.layers.0.mlp.down_proj.weight.core.0": floats(1, 2, 4, 3),
        "model.layers.0.mlp.down_proj.weight.core.1": floats(3, (hidden - 4) / 2, intermediate / 4, 1),
        "model.layers.0.mlp.down_proj.weight.dense": floats(4, intermediate),
        "model.embed_tokens.weight.table": floats(2, 5, hidden),
        "model.embed_tokens.weight.index": { dtype: "U32", shape: [vocab, 2], bytes: Buffer.alloc(vocab * 8) },
        "model.embed_tokens.weight.norm.weight": floats(hidden),
        "model.embed_tokens.weight.norm.bias": floats(hidden),
      }),
    ].filter(([name]) => name !== "model.layers.0.mlp.down_proj.weight"),
  ),
};

/** Header, as a value to be damaged, and data of a safetensors file. */
export function safetensorsParts(tensors) {
  const header = { __metadata__: { format: "pt" } };
  let at = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  return { header, data: Buffer.concat([...tensors.values()].map(({ bytes }) => bytes)) };
}

export function safetensorsFile(header, data) {
  const text = Buffer.from(JSON.stringify(header) ?? "");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

/** GGUF: metadata as [type, value] by key, tensors as objects; both are values to be damaged. */
export const gguf = {
  version: 3,
  metadata: {
    "general.architecture": [8, "llama"],
    "llama.block_count": [4, 1],
    "llama.context_length": [4, 64],
    "llama.embedding_length": [4, hidden],
    "llama.feed_forward_length": [4, intermediate],
    "llama.attention.head_count": [4, heads],
    "llama.attention.head_count_kv": [4, kvHeads],
    "llama.attention.layer_norm_rms_epsilon": [6, 1e-6],
    "llama.rope.dimension_count": [4, headDim],
    "llama.rope.freq_base": [6, 10000],
    "tokenizer.ggml.model": [8, "gpt2"],
    "tokenizer.ggml.pre": [8, "qwen2"],
    "tokenizer.ggml.tokens": [9, 8, tokens],
    "tokenizer.ggml.token_type": [9, 5, tokens.map((_, id) => (id < 2 ? 3 : 1))],
    "tokenizer.ggml.scores": [9, 6, tokens.map((_, id) => -id)],
    "tokenizer.ggml.merges": [9, 8, merges],
    "tokenizer.ggml.bos_token_id": [4, 0],
    "tokenizer.ggml.eos_token_id": [4, 1],
    "tokenizer.ggml.add_bos_token": [7, 1],
    "tokenizer.chat_template": [8, tokenizerConfig.chat_template],
  },
  tensors: [
    ["token_embd.weight", [vocab, hidden], 0, vocab * hidden * 4],
    ["output_norm.weight", [hidden], 0, hidden * 4],
    ["blk.0.attn_norm.weight", [hidden], 0, hidden * 4],
    ["blk.0.ffn_norm.weight", [hidden], 0, hidden * 4],
    ["blk.0.attn_q.weight", [heads * headDim, hidden], 1, heads * headDim * hidden * 2],
    ["blk.0.attn_k.weight", [kvHeads * headDim, hidden], 0, kvHeads * headDim * hidden * 4],
    ["blk.0.attn_v.weight", [kvHeads * headDim, hidden], 30, kvHeads * headDim * hidden * 2],
    ["blk.0.attn_output.weight", [hidden, heads * headDim], 0, hidden * heads * headDim * 4],
    ["blk.0.ffn_gate.weight", [intermediate, hidden], 0, intermediate * hidden * 4],
    ["blk.0.ffn_up.weight", [intermediate, hidden], 0, intermediate * hidden * 4],
    ["blk.0.ffn_down.weight", [hidden, intermediate], 0, hidden * intermediate * 4],
    ["extra.weight", [2, 32], 8, 68],
    ["extra_k.weight", [1, 256], 12, 144],
  ],
};

export const number = (value) => (typeof value === "number" || typeof value === "string" ? Number(value) || 0 : 0);
export const integer = (value) => (Number.isFinite(number(value)) ? BigInt(Math.trunc(number(value))) : 0n);
const u32 = (value) => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(Number(BigInt.asUintN(32, integer(value))));
  return b;
};
const u64 = (value) => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt.asUintN(64, integer(value)));
  return b;
};
const text = (value) => {
  const b = Buffer.from(typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
  return Buffer.concat([u64(b.length), b]);
};
const u16 = (value) => u32(value).subarray(0, 2);
const scalarWriters = {
  2: u16,
  3: u16,
  0: (v) => Buffer.from([number(v) & 255]),
  1: (v) => Buffer.from([number(v) & 255]),
  7: (v) => Buffer.from([number(v) & 255]),
  4: u32,
  5: u32,
  6: (v) => {
    const b = Buffer.alloc(4);
    b.writeFloatLE(number(v));
    return b;
  },
  8: text,
  10: u64,
  11: u64,
  12: (v) => {
    const b = Buffer.alloc(8);
    b.writeDoubleLE(number(v));
    return b;
  },
};
const writer = (type) => (Object.hasOwn(scalarWriters, String(number(type))) ? scalarWriters[number(type)] : u32);
export const items = (value) => (Array.isArray(value) ? value : [value]);

/** Bytes of a GGUF file however damaged the description is. */
export function ggufFile(description) {
  const { version, metadata, tensors } = typeof description === "object" && description !== null ? description : {};
  const keys = Object.entries(typeof metadata === "object" && metadata !== null ? metadata : {});
  const placed = items(tensors ?? []);
  const pieces = [Buffer.from("GGUF"), u32(version), u64(placed.length), u64(keys.length)];
  for (const [key, value] of keys) {
    const [type, second, third] = items(value);
    pieces.push(text(key), u32(type));
    if (type === 9) pieces.push(u32(second), u64(items(third).length), ...items(third).map(writer(second)));
    else pieces.push(writer(type)(second));
  }
  let at = 0;
  for (const tensor of placed) {
    const [name, shape, type, bytes] = items(tensor);
    const sizes = items(shape);
    pieces.push(text(name), u32(sizes.length), ...[...sizes].reverse().map(u64), u32(type), u64(at));
    at += Math.ceil((number(bytes) > 0 && number(bytes) < 1e5 ? number(bytes) : 0) / 32) * 32;
  }
  const head = Buffer.concat(pieces);
  return Buffer.concat([head, Buffer.alloc(Math.ceil(head.length / 32) * 32 - head.length + at, 1)]);
}

export const recipe = `version: 1
calibration: { windows: 4, window: 64 }
stages:
  - type: prune
    method: sparsegpt
    pattern: 2:4
    ignore: ["**.layers.0.**"]
  - type: quantize
    method: gptq
    options: { bits: 4, groupSize: 32 }
`;

const row = (perplexity, bytesOnDisk) => ({
  model: "a",
  weights: "bf16",
  activationSparsity: 0,
  perplexity,
  bytesOnDisk,
  decodeTokensPerSecond: 10,
  window: 64,
  windows: 2,
  tokens: 100,
});
export const sweep = {
  rarefySweep: 1,
  model: "m",
  machine: { cpu: "x", memoryBytes: 1000 },
  entries: [
    { name: "source", row: row(30, 1000) },
    {
      name: "wanda-0.5",
      row: row(33, 800),
      recipe: { version: 1, stages: [] },
      layers: [
        { source: 0, matrices: { q_proj: { rows: 4, cols: 4, sparsity: 0.5, nonZeros: 8, relativeError: 0.1 } } },
      ],
    },
    { name: "wanda-0.3", row: row(31, 900) },
  ],
};
export const trainingLog = Array.from({ length: 6 }, (_, i) => ({
  step: i + 1,
  loss: 5 / (i + 1),
  learningRate: 0.1 * i,
  elapsedMs: 10,
}));
