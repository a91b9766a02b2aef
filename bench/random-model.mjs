// Writes a Llama of random weights in Hugging Face layout: speed depends on shapes and formats, not on what was learnt.
//
//   node random-model.mjs --out .models/llama-1.1b [--layers 22 --hidden 2048 --ffn 5632 --heads 32 --kv-heads 4
//                         --vocab 32000 --context 2048 --seed 1 --tied]
//
// Weights are close to normal with standard deviation 1/√inputs, so that activations keep a size of about 1 through any depth.

import { closeSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const number = (value) => ({ type: "string", default: String(value) });
const { values } = parseArgs({
  options: {
    out: { type: "string", default: join(import.meta.dirname, ".models/llama-1.1b") },
    layers: number(22),
    hidden: number(2048),
    ffn: number(5632),
    heads: number(32),
    "kv-heads": number(4),
    vocab: number(32000),
    context: number(2048),
    seed: number(1),
    "shard-mib": number(512),
    tied: { type: "boolean", default: false },
  },
});
const [layers, hidden, ffn, heads, kvHeads, vocab, context, seed, shardMib] = [
  values.layers,
  values.hidden,
  values.ffn,
  values.heads,
  values["kv-heads"],
  values.vocab,
  values.context,
  values.seed,
  values["shard-mib"],
].map((text) => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`expected a whole number of at least 1, got "${text}"`);
  return value;
});
const headDim = hidden / heads;
if (!Number.isInteger(headDim / 2)) throw new Error(`hidden (${hidden}) must be an even multiple of heads (${heads})`);
if (vocab < 260) throw new Error("the byte-level vocabulary needs at least 260 entries");

// --- tensors -----------------------------------------------------------------------------------------------------------

/** Every tensor in file order; `deviation` undefined means a norm weight, all ones. */
function* tensorList() {
  yield { name: "model.embed_tokens.weight", shape: [vocab, hidden], deviation: 1 };
  for (let layer = 0; layer < layers; layer++) {
    const matrix = (name, out, inputs) => ({
      name: `model.layers.${layer}.${name}.weight`,
      shape: [out, inputs],
      deviation: 1 / Math.sqrt(inputs),
    });
    const norm = (name) => ({ name: `model.layers.${layer}.${name}.weight`, shape: [hidden] });
    yield norm("input_layernorm");
    yield matrix("self_attn.q_proj", hidden, hidden);
    yield matrix("self_attn.k_proj", kvHeads * headDim, hidden);
    yield matrix("self_attn.v_proj", kvHeads * headDim, hidden);
    yield matrix("self_attn.o_proj", hidden, hidden);
    yield norm("post_attention_layernorm");
    yield matrix("mlp.gate_proj", ffn, hidden);
    yield matrix("mlp.up_proj", ffn, hidden);
    yield matrix("mlp.down_proj", hidden, ffn);
  }
  yield { name: "model.norm.weight", shape: [hidden] };
  if (!values.tied) yield { name: "lm_head.weight", shape: [vocab, hidden], deviation: 1 / Math.sqrt(hidden) };
}

const elements = (tensor) => tensor.shape.reduce((a, b) => a * b, 1);

/** Consecutive tensors up to the shard size; a larger tensor has a shard of its own. */
function shards() {
  const result = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const tensor of tensorList()) {
    const size = elements(tensor) * 2;
    if (bytes + size > shardMib * 2 ** 20) {
      result.push([]);
      bytes = 0;
    }
    result.at(-1).push(tensor);
    bytes += size;
  }
  return result;
}

// --- values ------------------------------------------------------------------------------------------------------------

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
function bf16(value) {
  float[0] = value;
  return (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) >>> 16;
}

/** bf16 of the sum of four uniform bytes, centred and scaled: close to normal, and one random word a weight. */
function sumTable(deviation) {
  const unit = Math.sqrt((4 * (256 ** 2 - 1)) / 12);
  return Uint16Array.from({ length: 4 * 255 + 1 }, (_, sum) => bf16(((sum - 510) / unit) * deviation));
}

/** A well mixed nonzero 32-bit state, so that neighbouring tensors draw unrelated numbers. */
function mix(value) {
  let h = Math.imul(value ^ (value >>> 16), 0x21f0aaad);
  h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
  return (h ^ (h >>> 15)) | 1;
}

const chunk = new Uint16Array(4 * 2 ** 20);
function writeValues(file, tensor, index) {
  const table = tensor.deviation === undefined ? undefined : sumTable(tensor.deviation);
  const one = bf16(1);
  let state = mix(seed * 65537 + index);
  for (let left = elements(tensor); left > 0; ) {
    const count = Math.min(left, chunk.length);
    if (table === undefined) chunk.fill(one, 0, count);
    else {
      for (let i = 0; i < count; i++) {
        // xorshift32 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        chunk[i] = table[(state & 255) + ((state >>> 8) & 255) + ((state >>> 16) & 255) + (state >>> 24)];
      }
    }
    writeSync(file, new Uint8Array(chunk.buffer, 0, count * 2));
    left -= count;
  }
}

// --- files -------------------------------------------------------------------------------------------------------------

/** Printable stand-ins of the 256 bytes, as GPT-2's byte-level vocabulary spells them. */
function byteSymbols() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/** Byte-level BPE where text becomes one token a byte: the rest of the vocabulary can be generated but never typed. */
function tokenizer() {
  const special = ["<unk>", "<s>", "</s>"];
  const pieces = [...special, ...byteSymbols(), "\u0100\u0100"];
  while (pieces.length < vocab) pieces.push(`<${pieces.length}>`);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
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
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      // llama.cpp wants at least one merge; this one joins two zero bytes.
      merges: [["\u0100", "\u0100"]],
    },
  };
}

const config = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  bos_token_id: 1,
  dtype: "bfloat16",
  eos_token_id: 2,
  head_dim: headDim,
  hidden_act: "silu",
  hidden_size: hidden,
  intermediate_size: ffn,
  max_position_embeddings: context,
  mlp_bias: false,
  model_type: "llama",
  num_attention_heads: heads,
  num_hidden_layers: layers,
  num_key_value_heads: kvHeads,
  rms_norm_eps: 1e-5,
  rope_parameters: { rope_theta: 10000, rope_type: "default" },
  tie_word_embeddings: values.tied,
  vocab_size: vocab,
};

const started = performance.now();
mkdirSync(values.out, { recursive: true });
const json = (name, value) => writeFileSync(join(values.out, name), `${JSON.stringify(value, null, 2)}\n`);

const weightMap = {};
let totalSize = 0;
let index = 0;
const list = shards();
for (const [shard, tensors] of list.entries()) {
  const number = (n) => String(n).padStart(5, "0");
  const name =
    list.length === 1 ? "model.safetensors" : `model-${number(shard + 1)}-of-${number(list.length)}.safetensors`;
  const header = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const tensor of tensors) {
    const end = offset + elements(tensor) * 2;
    header[tensor.name] = { dtype: "BF16", shape: tensor.shape, data_offsets: [offset, end] };
    weightMap[tensor.name] = name;
    offset = end;
  }
  totalSize += offset;
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));

  const path = join(values.out, name);
  const file = openSync(`${path}.part`, "w");
  writeSync(file, length);
  writeSync(file, padded);
  for (const tensor of tensors) writeValues(file, tensor, index++);
  closeSync(file);
  renameSync(`${path}.part`, path);
}
if (list.length > 1)
  json("model.safetensors.index.json", { metadata: { total_size: totalSize }, weight_map: weightMap });
json("tokenizer.json", tokenizer());
json("tokenizer_config.json", {
  tokenizer_class: "PreTrainedTokenizerFast",
  bos_token: "<s>",
  eos_token: "</s>",
  model_max_length: context,
  clean_up_tokenization_spaces: false,
});
json("generation_config.json", { bos_token_id: 1, eos_token_id: 2 });
json("config.json", config);
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(
  `${values.out}: ${(totalSize / 2e6).toFixed(1)} M parameters, ${(totalSize / 1e9).toFixed(2)} GB in ${list.length} files, ${seconds} s`,
);
