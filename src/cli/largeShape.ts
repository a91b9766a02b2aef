import { Random } from "../core/index.js";
import { measureSpeed, type ResultRow, resultRow } from "../eval/index.js";
import type { ByteSource, ModelFiles } from "../io/index.js";
import { calibrateActivationSparsity, openModel, toThresholds } from "../pipeline/index.js";
import type { Context } from "./command.js";
import type { MachineOptions, WeightsOption } from "./options.js";

/** Three blocks of TinyLlama-1.1B's shape: 132 million parameters, 264 MB in bf16. No processor's cache holds them for long. */
const config = {
  model_type: "llama",
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 3,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 512,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
};

/** Numbers that are repeated as weights, a multiple of 4 that no row's length divides. */
const period = 2 ** 20 + 28;

/** Decode speed of a shape with random weights: dense, with half of its inputs skipped, and cut to 2:4. */
export async function measureLargeShape(
  context: Context,
  options: MachineOptions & WeightsOption,
  repeats: number,
): Promise<ResultRow[]> {
  const { weights, device, threads } = options;
  const { signal, onProgress } = context;
  const open = (twoOfFour: boolean) =>
    openModel(randomFiles(twoOfFour), {
      ...{ weights, device, threads, signal, onProgress },
      structure: twoOfFour ? "2:4" : "dense",
    });
  using dense = await open(false);
  using cut = await open(true);
  const random = new Random(1);
  const tokens = Uint32Array.from({ length: 64 }, () => random.integer(config.vocab_size));
  const text = { tokens, sha256: "" };
  const { records } = await calibrateActivationSparsity(dense.model, text, {
    sparsities: [0.5],
    window: tokens.length,
    calibrationWindows: 1,
    ...context,
  });
  const variants = [
    { name: "dense", model: dense.model },
    { name: "50 % skipped", model: dense.model, thresholds: toThresholds(records[0]) },
    { name: "2:4", model: cut.model },
  ];
  const timing = { prefillTokens: 8, decodeTokens: 16, repeats, ...context };
  const speeds = await measureSpeed(variants, tokens, timing);
  const { backend } = dense.model;
  return speeds.map((speed) =>
    resultRow({ model: speed.name, weights: dense.model.weights, speed, backend: backend.info.id }),
  );
}

/** A checkpoint that is made as it is read, so that it takes no memory. */
function randomFiles(twoOfFour: boolean): ModelFiles {
  const { hidden_size: hidden, intermediate_size: inner, num_key_value_heads: kvHeads } = config;
  const kv = (hidden / config.num_attention_heads) * kvHeads;
  const tensors: [name: string, shape: number[]][] = [
    ["model.embed_tokens.weight", [config.vocab_size, hidden]],
    ["model.norm.weight", [hidden]],
  ];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const of = (name: string) => `model.layers.${layer}.${name}.weight`;
    for (const name of ["input_layernorm", "post_attention_layernorm"]) tensors.push([of(name), [hidden]]);
    for (const name of ["q_proj", "o_proj"]) tensors.push([of(`self_attn.${name}`), [hidden, hidden]]);
    for (const name of ["k_proj", "v_proj"]) tensors.push([of(`self_attn.${name}`), [kv, hidden]]);
    for (const name of ["gate_proj", "up_proj"]) tensors.push([of(`mlp.${name}`), [inner, hidden]]);
    tensors.push([of("mlp.down_proj"), [hidden, inner]]);
  }
  const header: Record<string, unknown> = {};
  const norms: [begin: number, end: number][] = [];
  let end = 0;
  for (const [name, shape] of tensors) {
    const begin = end;
    end += 2 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
    if (shape.length === 1) norms.push([begin, end]);
  }
  const json = new TextEncoder().encode(JSON.stringify(header).padEnd(2 ** 14));
  const head = new Uint8Array(8 + json.length);
  new DataView(head.buffer).setBigUint64(0, BigInt(json.length), true);
  head.set(json, 8);
  const numbers = new Uint8Array(randomNumbers(twoOfFour).buffer);
  const one = Uint8Array.of(0x80, 0x3f);

  const fill = (offset: number, into: Uint8Array) => {
    for (let done = 0; done < into.length; ) {
      const at = offset + done;
      const inHead = at < head.length;
      const from = inHead ? at : (at - head.length) % numbers.length;
      const piece = (inHead ? head : numbers).subarray(from, from + into.length - done);
      into.set(piece, done);
      done += piece.length;
    }
    for (const [begin, end] of norms) {
      const first = Math.max(begin + head.length, offset);
      for (let at = first; at < Math.min(end + head.length, offset + into.length); at++)
        into[at - offset] = one[at % 2];
    }
  };
  const source = (name: string, byteLength: number, read: typeof fill): ByteSource => ({
    name,
    byteLength,
    async read(offset, length, into = new Uint8Array(length)) {
      read(offset, into);
      return into;
    },
    async close() {},
  });
  const configBytes = new TextEncoder().encode(JSON.stringify(config));
  const location = "random weights";
  return {
    location,
    async open(name) {
      if (name === "model.safetensors") return source(name, head.length + end, fill);
      if (name !== "config.json") return undefined;
      return source(name, configBytes.length, (offset, into) =>
        into.set(configBytes.subarray(offset, offset + into.length)),
      );
    },
    async close() {},
  };
}

/** bf16 numbers of mixed signs below 0.04; with `twoOfFour` two of every four are 0. */
function randomNumbers(twoOfFour: boolean): Uint16Array {
  const random = new Random(7);
  const out = new Uint16Array(period);
  for (let i = 0; i < period; i += 4) {
    const gone = random.integer(4);
    for (let k = 0; k < 4; k++) {
      const zero = twoOfFour && (k === gone || k === (gone + 1) % 4);
      const value = new Float32Array([(random.uniform() - 0.5) * 0.08]);
      out[i + k] = zero ? 0 : new Uint32Array(value.buffer)[0] >>> 16;
    }
  }
  return out;
}
