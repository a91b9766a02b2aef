// Adapters and slow tokenizers for the model of seeds.mjs, right ones.

import { integer, items, number, sizes } from "./seeds.mjs";

const { hidden, intermediate, heads, kvHeads, headDim } = sizes;

/** PEFT's directories for the first config's model. */
export const adapters = [
  {
    config: {
      ...{
        peft_type: "LORA",
        r: 2,
        lora_alpha: 4,
        bias: "none",
        use_rslora: false,
        use_dora: false,
        task_type: "CAUSAL_LM",
      },
      ...{ target_modules: ["q_proj", "up_proj"], alpha_pattern: { up_proj: 8 }, base_model_name_or_path: "models/x" },
      ...{ modules_to_save: null, fan_in_fan_out: false, inference_mode: true },
    },
    tensors: adapterTensors({
      "self_attn.q_proj.lora_A": [2, hidden],
      "self_attn.q_proj.lora_B": [heads * headDim, 2],
      "mlp.up_proj.lora_A": [2, hidden],
      "mlp.up_proj.lora_B": [intermediate, 2],
    }),
  },
  {
    config: { peft_type: "IA3", target_modules: ["k_proj", "down_proj"], feedforward_modules: ["down_proj"] },
    tensors: adapterTensors({
      "self_attn.k_proj.ia3_l": [kvHeads * headDim, 1],
      "mlp.down_proj.ia3_l": [1, intermediate],
    }),
  },
  {
    config: { peft_type: "MOLORA", r: 2, lora_alpha: 4, num_experts: 3, top_k: 2, target_modules: ["q_proj"] },
    tensors: adapterTensors({
      "self_attn.q_proj.molora_A": [3, 2, hidden],
      "self_attn.q_proj.molora_B": [3, heads * headDim, 2],
      "self_attn.q_proj.router": [3, hidden],
    }),
  },
  {
    config: { peft_type: "MOV", num_experts: 3, top_k: null, feedforward_modules: ["down_proj"] },
    tensors: adapterTensors({
      "self_attn.k_proj.mov_l": [3, kvHeads * headDim],
      "self_attn.k_proj.router": [3, headDim],
      "mlp.down_proj.mov_l": [3, intermediate],
      "mlp.down_proj.router": [3, intermediate],
    }),
  },
];

function adapterTensors(shapes) {
  const prefix = "base_model.model.model.layers.0.";
  return new Map(
    Object.entries(shapes).map(([name, shape]) => {
      const values = new Float32Array(shape.reduce((all, n) => all * n, 1)).fill(0.25);
      return [`${prefix}${name}.weight`, { dtype: "F32", shape, bytes: Buffer.from(values.buffer) }];
    }),
  );
}

/** A SentencePiece model: pieces as [text, score, type], trainer and normalizer by the numbers of their fields. */
export const sentencePiece = {
  pieces: [
    ...[
      ["<unk>", 0, 2],
      ["<s>", 0, 3],
      ["</s>", 0, 3],
    ],
    ...["▁the", "▁", "t", "h", "e", "▁t", "he", "o", "f", "of", "s", "a"].map((piece, i) => [piece, -i, 1]),
    ...Array.from({ length: 256 }, (_, byte) => [`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, 0, 6]),
  ],
  trainer: { 3: 2, 35: 1, 40: 0, 41: 1, 42: 2 },
  normalizer: { 1: "identity", 3: 1, 4: 0, 5: 1 },
};

function varint(value) {
  let rest = BigInt.asUintN(64, integer(value));
  const bytes = [];
  do {
    bytes.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}

const tagged = (field, wire, ...payload) => Buffer.concat([varint(number(field) * 8 + wire), ...payload]);
const message = (field, bytes) => tagged(field, 2, varint(bytes.length), bytes);
const anyField = (field, value) =>
  typeof value === "string" ? message(field, Buffer.from(value)) : tagged(field, 0, varint(value));

/** Bytes of a SentencePiece model however damaged the description is. */
export function sentencePieceFile(description) {
  const { pieces, trainer, normalizer } = typeof description === "object" && description !== null ? description : {};
  const settings = (value) => Buffer.concat(Object.entries(value ?? {}).map(([field, one]) => anyField(field, one)));
  const each = items(pieces ?? []).map((piece) => {
    const [text, score, type] = items(piece);
    const float = Buffer.alloc(4);
    float.writeFloatLE(number(score));
    return message(1, Buffer.concat([anyField(1, text), tagged(2, 5, float), anyField(3, type)]));
  });
  return Buffer.concat([...each, message(2, settings(trainer)), message(3, settings(normalizer))]);
}
