// Writes the same weights as GGUF, so that llama.cpp computes with what rarefy computes with.
//
//   node gguf-twin.mjs MODEL_DIRECTORY [--types Q8_0,Q4_0,F16]
//
// Every matrix gets the named type (llama.cpp's --pure), norms are F32. q and k rows are reordered because llama.cpp
// rotates neighbouring pairs where Hugging Face rotates halves.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { closeSync, openSync, renameSync, writeSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { openCheckpoint, readJson } from "./checkpoint.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { types: { type: "string", default: "Q8_0,Q4_0,F16" } },
});
if (positionals.length !== 1) throw new Error("usage: node gguf-twin.mjs MODEL_DIRECTORY [--types Q8_0,Q4_0,F16]");
const directory = resolve(positionals[0]);
const config = readJson(join(directory, "config.json"));
if (config.model_type !== "llama") throw new Error(`model_type is ${config.model_type}; only llama has a twin`);
const tensors = openCheckpoint(directory);

// --- numbers -----------------------------------------------------------------------------------------------------------

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** IEEE half of a float, rounded to nearest even. */
function half(value) {
  f32[0] = value;
  const sign = (u32[0] >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  if (!(magnitude < 65520)) return sign | (Number.isNaN(value) ? 0x7e00 : 0x7c00);
  // Adding a power of two whose last place is the half's last place makes the f32 adder do the rounding.
  const exponent = Math.max((u32[0] >>> 23) & 0xff, 113);
  u32[0] = (exponent + 13) << 23;
  const anchor = f32[0];
  f32[0] = magnitude + anchor;
  const fraction = u32[0] & 0x7fffff;
  return sign | (((exponent - 113) << 10) + fraction);
}

/** bf16 bits to float, and to half bits. */
const widen = new Float32Array(65536);
new Uint32Array(widen.buffer).forEach((_, i, all) => {
  all[i] = i << 16;
});
const toHalf = Uint16Array.from(widen, half);

// --- block types, as in ggml's reference quantisers ------------------------------------------------------------------------

const blockSize = 32;
const types = {
  F32: {
    id: 0,
    bytes: (n) => n * 4,
    encode: (source) => new Uint8Array(Float32Array.from(source, (b) => widen[b]).buffer),
  },
  F16: {
    id: 1,
    fileType: 1,
    bytes: (n) => n * 2,
    encode: (source) => new Uint8Array(source.map((b) => toHalf[b]).buffer),
  },
  Q8_0: { id: 8, fileType: 7, bytes: (n) => (n / blockSize) * 34, encode: encodeQ8 },
  Q4_0: { id: 2, fileType: 2, bytes: (n) => (n / blockSize) * 18, encode: encodeQ4 },
};

/** f16 scale, then 32 int8: scale = max|x| / 127, codes rounded half away from zero. */
function encodeQ8(source) {
  const out = new Uint8Array(types.Q8_0.bytes(source.length));
  for (let from = 0, to = 0; from < source.length; from += blockSize, to += 34) {
    let largest = 0;
    for (let i = 0; i < blockSize; i++) largest = Math.max(largest, Math.abs(widen[source[from + i]]));
    const scale = Math.fround(largest / 127);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    const bits = half(scale);
    out[to] = bits & 255;
    out[to + 1] = bits >>> 8;
    for (let i = 0; i < blockSize; i++) {
      const x = Math.fround(widen[source[from + i]] * inverse);
      out[to + 2 + i] = x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5);
    }
  }
  return out;
}

/** f16 scale, then 32 codes 0 … 15 meaning scale · (code − 8): byte i holds code i (low) and i + 16 (high). */
function encodeQ4(source) {
  const out = new Uint8Array(types.Q4_0.bytes(source.length));
  for (let from = 0, to = 0; from < source.length; from += blockSize, to += 18) {
    let extreme = 0;
    for (let i = 0; i < blockSize; i++) {
      const x = widen[source[from + i]];
      if (Math.abs(x) > Math.abs(extreme)) extreme = x;
    }
    const scale = Math.fround(extreme / -8);
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    const bits = half(scale);
    out[to] = bits & 255;
    out[to + 1] = bits >>> 8;
    const code = (i) => Math.min(15, Math.trunc(Math.fround(Math.fround(widen[source[from + i]] * inverse) + 8.5)));
    for (let i = 0; i < 16; i++) out[to + 2 + i] = code(i) | (code(i + 16) << 4);
  }
  return out;
}

// --- metadata ------------------------------------------------------------------------------------------------------------

const text = (value) => {
  const bytes = Buffer.from(value);
  return [u64(bytes.length), bytes];
};
const fixed = (size, method) => (value) => {
  const buffer = Buffer.alloc(size);
  buffer[method](value);
  return buffer;
};
const u64 = (value) => fixed(8, "writeBigUInt64LE")(BigInt(value));
const uint32 = fixed(4, "writeUInt32LE");
const kinds = {
  u32: [4, uint32],
  i32: [5, fixed(4, "writeInt32LE")],
  f32: [6, fixed(4, "writeFloatLE")],
  bool: [7, (value) => Buffer.of(value ? 1 : 0)],
  string: [8, text],
};
/** Key, type id, value; an array's value is its element type, its length and its elements. */
function entry(key, kind, value) {
  const [id, encode] = kinds[kind];
  const payload = Array.isArray(value)
    ? [uint32(9), uint32(id), u64(value.length), ...value.map(encode)]
    : [uint32(id), encode(value)];
  return Buffer.concat([text(key), payload].flat(2));
}

/** Byte-level BPE of tokenizer.json as llama.cpp's "gpt2" vocabulary. Rows without a piece get a made-up one. */
function vocabulary() {
  const { model, added_tokens: added } = readJson(join(directory, "tokenizer.json"));
  if (model.type !== "BPE") throw new Error(`tokenizer.json has a ${model.type} model; the twin knows byte-level BPE`);
  const [normal, control] = [1, 3];
  const pieces = Array.from({ length: config.vocab_size }, (_, id) => `<unused ${id}>`);
  const kind = new Array(config.vocab_size).fill(normal);
  for (const [piece, id] of Object.entries(model.vocab)) pieces[id] = piece;
  for (const { id, content } of added) {
    pieces[id] = content;
    kind[id] = control;
  }
  return [
    entry("tokenizer.ggml.model", "string", "gpt2"),
    entry("tokenizer.ggml.pre", "string", "gpt-2"),
    entry("tokenizer.ggml.tokens", "string", pieces),
    entry("tokenizer.ggml.token_type", "i32", kind),
    entry(
      "tokenizer.ggml.merges",
      "string",
      model.merges.map((merge) => (Array.isArray(merge) ? merge.join(" ") : merge)),
    ),
    entry("tokenizer.ggml.bos_token_id", "u32", config.bos_token_id),
    entry("tokenizer.ggml.eos_token_id", "u32", config.eos_token_id),
    entry("tokenizer.ggml.add_bos_token", "bool", false),
  ];
}

const headDim = config.head_dim ?? config.hidden_size / config.num_attention_heads;
const metadata = (type) => [
  entry("general.architecture", "string", "llama"),
  entry("general.name", "string", basename(directory)),
  entry("general.file_type", "u32", types[type].fileType),
  entry("general.quantization_version", "u32", 2),
  entry("llama.block_count", "u32", config.num_hidden_layers),
  entry("llama.context_length", "u32", config.max_position_embeddings),
  entry("llama.embedding_length", "u32", config.hidden_size),
  entry("llama.feed_forward_length", "u32", config.intermediate_size),
  entry("llama.attention.head_count", "u32", config.num_attention_heads),
  entry("llama.attention.head_count_kv", "u32", config.num_key_value_heads),
  entry("llama.attention.layer_norm_rms_epsilon", "f32", config.rms_norm_eps),
  entry("llama.rope.dimension_count", "u32", headDim),
  entry("llama.rope.freq_base", "f32", config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10000),
  entry("llama.vocab_size", "u32", config.vocab_size),
  ...vocabulary(),
];

// --- tensors -------------------------------------------------------------------------------------------------------------

const blockNames = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};
const otherNames = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};
function ggufName(name) {
  const match = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name);
  const result = match ? blockNames[match[2]] && `blk.${match[1]}.${blockNames[match[2]]}.weight` : otherNames[name];
  if (!result) throw new Error(`no GGUF name for ${name}`);
  return result;
}

/** Rows of one rotary head: halves (i, i + headDim/2) become neighbours (2i, 2i + 1). */
function interleaveHeads(source, inputs) {
  const out = new Uint16Array(source.length);
  for (let row = 0; row < source.length / inputs; row++) {
    const within = row % headDim;
    const from = row - within + (within % 2) * (headDim / 2) + (within >> 1);
    out.set(source.subarray(from * inputs, (from + 1) * inputs), row * inputs);
  }
  return out;
}

const alignment = 32;
const aligned = (bytes) => Math.ceil(bytes / alignment) * alignment;

function writeTwin(type) {
  const plan = [];
  let offset = 0;
  for (const [name, tensor] of tensors) {
    const stored = tensor.shape.length === 1 ? types.F32 : types[type];
    if (stored !== types.F32 && tensor.shape[1] % blockSize)
      throw new Error(`${name}: ${tensor.shape[1]} inputs, not blocks of 32`);
    plan.push({ name, tensor, stored, offset });
    offset += aligned(stored.bytes(tensor.length));
  }
  const entries = metadata(type);
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    uint32(3),
    u64(plan.length),
    u64(entries.length),
    ...entries,
    ...plan.flatMap(({ name, tensor, stored, offset }) => [
      ...text(ggufName(name)),
      uint32(tensor.shape.length),
      ...tensor.shape.toReversed().map(u64),
      uint32(stored.id),
      u64(offset),
    ]),
  ]);

  const path = join(directory, `${basename(directory)}-${type}.gguf`);
  const file = openSync(`${path}.part`, "w");
  let written = 0;
  const put = (bytes) => {
    writeSync(file, bytes);
    written += bytes.length;
  };
  const pad = () => put(new Uint8Array(aligned(written) - written));
  put(header);
  pad();
  for (const { name, tensor, stored } of plan) {
    // Whole heads at a time, so that their rows can be reordered; about 8 MiB of bf16.
    const inputs = tensor.shape.at(-1);
    const rotary = /self_attn\.[qk]_proj/.test(name);
    const step = Math.max(1, Math.floor(2 ** 22 / (inputs * headDim))) * headDim * inputs;
    for (let start = 0; start < tensor.length; start += step) {
      const source = tensor.read(start, Math.min(step, tensor.length - start));
      put(stored.encode(rotary ? interleaveHeads(source, inputs) : source));
    }
    pad();
  }
  closeSync(file);
  renameSync(`${path}.part`, path);
  return { path, bytes: written };
}

for (const type of values.types.split(",")) {
  if (!types[type]?.fileType) throw new Error(`unknown type ${type}; known: Q8_0, Q4_0, F16`);
  const started = performance.now();
  const { path, bytes } = writeTwin(type);
  console.log(`${path}: ${(bytes / 1e9).toFixed(2)} GB, ${((performance.now() - started) / 1000).toFixed(1)} s`);
}
