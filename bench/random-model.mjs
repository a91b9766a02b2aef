// Writes a Llama of random weights in Hugging Face layout, or with --experts a Mixtral: speed depends on shapes and formats, not
// on what was learnt.
//
//   node random-model.mjs --out .models/llama-1.1b [--layers 22 --hidden 2048 --ffn 5632 --heads 32 --kv-heads 4
//                         --vocab 32000 --context 2048 --seed 1 --tied --relu-zeros 0.9 --gate-rank 28
//                         --experts 0 --per-token 2 --silent-from 4]
//
// Weights are close to normal with standard deviation 1/√inputs, so that activations keep a size of about 1 through any depth.
// --relu-zeros makes it a ReLU model that leaves about so many hidden values at 0: the first channel of the residual stream is the
// same for all tokens, and closes the gates, some neurons' (hot ones) less than others'. With --gate-rank the gates are products of
// two thin matrices, which lie beside the model as predictors that are right but for rounding. Layers from --silent-from on add
// nothing: with --tied the model of so many layers and of the same seed agrees with the whole one, as a perfect draft would.

import { closeSync, mkdirSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { byteSymbols, specialToken } from "../scripts/byte-level.mjs";
import { readOptions } from "../scripts/options.mjs";

const number = (value) => ({ type: "string", default: String(value) });
const { values } = readOptions({
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
    experts: number(0),
    "per-token": number(2),
    "shard-mib": number(512),
    tied: { type: "boolean", default: false },
    "relu-zeros": { type: "string" },
    "gate-rank": { type: "string" },
    "silent-from": { type: "string" },
  },
});
const experts = Number(values.experts);
if (!Number.isInteger(experts) || experts < 0) throw new Error(`expected a number of experts, got "${values.experts}"`);
if (experts > 0 && values["relu-zeros"] !== undefined) throw new Error("--relu-zeros is of models without experts");
const [layers, hidden, ffn, heads, kvHeads, vocab, context, seed, shardMib, perToken] = [
  values.layers,
  values.hidden,
  values.ffn,
  values.heads,
  values["kv-heads"],
  values.vocab,
  values.context,
  values.seed,
  values["shard-mib"],
  values["per-token"],
].map((text) => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`expected a whole number of at least 1, got "${text}"`);
  return value;
});
const headDim = hidden / heads;
if (!Number.isInteger(headDim / 2)) throw new Error(`hidden (${hidden}) must be an even multiple of heads (${heads})`);
const silentFrom = values["silent-from"] === undefined ? layers : Number(values["silent-from"]);
if (!Number.isInteger(silentFrom) || silentFrom < 0) throw new Error("--silent-from must be a number of layers");
const zeros = values["relu-zeros"] === undefined ? undefined : Number(values["relu-zeros"]);
const gateRank = values["gate-rank"] === undefined ? undefined : Number(values["gate-rank"]);
if (zeros !== undefined && !(zeros > 0 && zeros < 1)) throw new Error("--relu-zeros must be between 0 and 1");
if (gateRank !== undefined && (zeros === undefined || gateRank % 4 !== 0))
  throw new Error("--gate-rank must be a multiple of 4, and needs --relu-zeros");
if (vocab < 260) throw new Error("the byte-level vocabulary needs at least 260 entries");

// --- tensors -----------------------------------------------------------------------------------------------------------

/** Every tensor in file order; `deviation` undefined means a norm weight, all ones. */
function* tensorList() {
  yield {
    name: "model.embed_tokens.weight",
    shape: [vocab, hidden],
    deviation: 1,
    fix: firstColumn(() => Math.sqrt(hidden)),
  };
  for (let layer = 0; layer < layers; layer++) {
    const matrix = (name, out, inputs, more) => ({
      name: `model.layers.${layer}.${name}.weight`,
      shape: [out, inputs],
      deviation: 1 / Math.sqrt(inputs),
      ...more,
    });
    const added = layer < silentFrom ? quiet : silent;
    const norm = (name) => ({ name: `model.layers.${layer}.${name}.weight`, shape: [hidden] });
    yield norm("input_layernorm");
    yield matrix("self_attn.q_proj", hidden, hidden);
    yield matrix("self_attn.k_proj", kvHeads * headDim, hidden);
    yield matrix("self_attn.v_proj", kvHeads * headDim, hidden);
    yield matrix("self_attn.o_proj", hidden, hidden, added);
    yield norm("post_attention_layernorm");
    if (experts === 0) {
      yield matrix("mlp.gate_proj", ffn, hidden, zeros !== undefined && gateOf(layer));
      yield matrix("mlp.up_proj", ffn, hidden);
      yield matrix("mlp.down_proj", hidden, ffn, added);
    } else {
      yield matrix("block_sparse_moe.gate", experts, hidden);
    }
    for (let e = 0; e < experts; e++) {
      yield matrix(`block_sparse_moe.experts.${e}.w1`, ffn, hidden);
      yield matrix(`block_sparse_moe.experts.${e}.w3`, ffn, hidden);
      yield matrix(`block_sparse_moe.experts.${e}.w2`, hidden, ffn, added);
    }
  }
  yield { name: "model.norm.weight", shape: [hidden] };
  if (!values.tied) yield { name: "lm_head.weight", shape: [vocab, hidden], deviation: 1 / Math.sqrt(hidden) };
}

/** Overwrites column 0 of some values of a matrix. */
const firstColumn = (valueAt) =>
  zeros === undefined
    ? undefined
    : (chunk, first, [, cols]) => {
        for (let i = (cols - (first % cols)) % cols; i < chunk.length; i += cols)
          chunk[i] = bf16(valueAt((first + i) / cols));
      };
/**
 * What ReLU models add to the residual stream: little, so that its first channel keeps its share of the energy through all layers, and
 * nothing to that channel.
 */
const quiet = zeros !== undefined && {
  deviation: 0.1 / Math.sqrt(hidden),
  fix: (chunk, first, [, cols]) => chunk.fill(0, 0, Math.max(0, Math.min(chunk.length, cols - first))),
};

const silent = { fix: (chunk) => chunk.fill(0) };

/** How a gate closes its neurons, of any rank or of a low one. */
function gateOf(layer) {
  // Half of the energy of what enters is the first channel's. Neurons differ: scores are normal with variance 1 + 1 of each and all.
  const random = normals(seed * 7919 + layer);
  const middle = quantile(zeros) * Math.SQRT2;
  const closing = Float32Array.from({ length: ffn }, () => -(middle + random()) / Math.sqrt(hidden));
  if (gateRank === undefined) return { fix: firstColumn((neuron) => closing[neuron]) };
  const down = Float32Array.from({ length: (gateRank + 4) * hidden }, () => random() / Math.sqrt(hidden));
  const up = Float32Array.from({ length: ffn * (gateRank + 4) }, () => random() / Math.sqrt(gateRank));
  down.fill(0, gateRank * hidden);
  for (let k = 0; k <= gateRank; k++) down[k * hidden] = k === gateRank ? 1 : 0;
  for (let neuron = 0; neuron < ffn; neuron++) up[neuron * (gateRank + 4) + gateRank] = closing[neuron];
  predictors[layer] = { down, up };
  const rank = gateRank + 4;
  return {
    fix(chunk, first) {
      for (let i = 0; i < chunk.length; i++) {
        const [neuron, input] = [Math.floor((first + i) / hidden), (first + i) % hidden];
        let sum = 0;
        for (let k = 0; k <= gateRank; k++) sum += up[neuron * rank + k] * down[k * hidden + input];
        chunk[i] = bf16(sum);
      }
    },
  };
}
const predictors = [];

/** What the gates were made of, as `rarefy predict` leaves it beside a model. Nothing was measured: they are right by construction. */
function writePredictors() {
  const rank = gateRank + 4;
  const tensors = predictors.flatMap(({ down, up }, layer) => [
    [`layers.${layer}.down`, [rank, hidden], down],
    [`layers.${layer}.up`, [ffn, rank], up],
    [`layers.${layer}.bias`, [ffn], new Float32Array(ffn)],
  ]);
  let end = 0;
  const header = Object.fromEntries(
    tensors.map(([name, shape, { byteLength }]) => {
      end += byteLength;
      return [name, { dtype: "F32", shape, data_offsets: [end - byteLength, end] }];
    }),
  );
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const numbers = tensors.map(([, , { buffer }]) => new Uint8Array(buffer));
  writeFileSync(join(values.out, "predictors.safetensors"), Buffer.concat([length, padded, ...numbers]));
  const measured = predictors.map(() => ({ recall: 1, precision: 1, predictedShare: 1 - zeros }));
  json("predictors.json", { predictors: 1, rank, from: "own", textSha256: "0".repeat(64), layers: measured });
}

/** Standard normal numbers, by Box and Muller. */
function normals(from) {
  let state = mix(from);
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Below which a share of standard normal numbers lies, by bisection on their distribution. */
function quantile(share) {
  const below = (z) => {
    let sum = 0;
    for (let t = -8; t < z; t += 1e-3) sum += Math.exp((-t * t) / 2) * 1e-3;
    return sum / Math.sqrt(2 * Math.PI);
  };
  let [low, high] = [-5, 5];
  for (let i = 0; i < 30; i++)
    [low, high] = below((low + high) / 2) < share ? [(low + high) / 2, high] : [low, (low + high) / 2];
  return low;
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
    tensor.fix?.(chunk.subarray(0, count), elements(tensor) - left, tensor.shape);
    writeSync(file, new Uint8Array(chunk.buffer, 0, count * 2));
    left -= count;
  }
}

// --- files -------------------------------------------------------------------------------------------------------------

/** Byte-level BPE where text becomes one token a byte: the rest of the vocabulary can be generated but never typed. */
function tokenizer() {
  const special = ["<unk>", "<s>", "</s>"];
  const pieces = [...special, ...byteSymbols(), "\u0100\u0100"];
  while (pieces.length < vocab) pieces.push(`<${pieces.length}>`);
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map(specialToken),
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
  architectures: [experts === 0 ? "LlamaForCausalLM" : "MixtralForCausalLM"],
  attention_bias: false,
  bos_token_id: 1,
  dtype: "bfloat16",
  eos_token_id: 2,
  head_dim: headDim,
  hidden_act: zeros === undefined ? "silu" : "relu",
  hidden_size: hidden,
  intermediate_size: ffn,
  max_position_embeddings: context,
  mlp_bias: false,
  model_type: experts === 0 ? "llama" : "mixtral",
  ...(experts > 0 && { num_local_experts: experts, num_experts_per_tok: perToken }),
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
if (predictors.length > 0) writePredictors();
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(
  `${values.out}: ${(totalSize / 2e6).toFixed(1)} M parameters, ${(totalSize / 1e9).toFixed(2)} GB in ${list.length} files, ${seconds} s`,
);
