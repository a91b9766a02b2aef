import { FormatError, quote } from "../../core/index.js";
import { familyIn, ggufArchitectures } from "./architectures.js";
import type { GgufTensor } from "./header.js";
import type { Metadata } from "./metadata.js";
import { fitLlama3Scaling, type RopeTensors } from "./ropeFactors.js";

/**
 * Keys behind the architecture that change nothing: sizes that the tensors have, what the model was trained with, and what
 * llama.cpp does not look at either.
 */
const harmless = new Set([
  "vocab_size",
  "expert_used_count",
  "rope.scaling.original_context_length",
  "rope.scaling.finetuned",
  "tensor_data_layout",
]);

/** The family that a file holds. @throws FormatError when its architecture is none of those that can be run */
function familyOf(metadata: Metadata) {
  const type = metadata.string("general.type") ?? "model";
  if (type !== "model") {
    const [file, field] = [metadata.file, "general.type"];
    throw new FormatError({ file, field, problem: `it holds ${quote(type)}, which is no model by itself` });
  }
  const key = "general.architecture";
  const id = metadata.require(metadata.string(key), key);
  const isMixture = (metadata.number(`${id}.expert_count`) ?? 0) > 0;
  const found = familyIn(id, metadata.has(`${id}.attention.sliding_window`), isMixture);
  if (found !== undefined) return found;
  if (isMixture && familyIn(id, false, false) !== undefined) {
    const [file, field] = [metadata.file, `${id}.expert_count`];
    throw new FormatError({
      file,
      field,
      problem: `mixtures of experts of architecture ${quote(id)} are not supported`,
    });
  }
  throw new FormatError({
    file: metadata.file,
    field: key,
    problem: `architecture ${quote(id)} is not supported`,
    expected: `one of ${ggufArchitectures.join(", ")}`,
  });
}

/**
 * The `config.json` that the metadata stands for, to be checked like one.
 * @param rope what the file has in tensors
 * @throws FormatError
 */
export function configFromMetadata(
  metadata: Metadata,
  tensors: ReadonlyMap<string, GgufTensor>,
  rope: RopeTensors,
): Record<string, unknown> {
  const { file } = metadata;
  const { modelType, gguf } = familyOf(metadata);
  const key = (name: string) => `${gguf.architecture}.${name}`;
  const number = (name: string) => uniform(metadata, key(name));
  const required = (name: string) => metadata.require(number(name), key(name));

  const hiddenSize = required("embedding_length");
  const queryHeads = required("attention.head_count");
  const [rotated, keys] = [number("rope.dimension_count"), number("attention.key_length")];
  const headDim = (gguf.latent ? rotated : keys) ?? rotated ?? hiddenSize / queryHeads;
  const valueDim = number("attention.value_length") ?? headDim;
  if (valueDim !== headDim && !gguf.latent) {
    throw new FormatError({
      file,
      field: key("attention.value_length"),
      problem: `${valueDim}`,
      expected: `${headDim}`,
    });
  }
  if (metadata.boolean(key("attention.causal")) === false && !gguf.encoder) {
    throw new FormatError({
      file,
      field: key("attention.causal"),
      problem: "models that see later tokens are not supported",
    });
  }
  const theta = number("rope.freq_base") ?? 10_000;
  const window = number("attention.sliding_window");
  const id = (name: string) => metadata.number(`tokenizer.ggml.${name}_token_id`);
  const ends = [id("eos"), id("eot"), id("eom")].filter((token) => token !== undefined);

  const kvHeads = number("attention.head_count_kv") ?? queryHeads;
  const flag = (name: string) => metadata.boolean(key(name));
  const ofLlama = () => ({
    hidden_size: hiddenSize,
    intermediate_size: required("feed_forward_length"),
    num_hidden_layers: required("block_count"),
    num_attention_heads: queryHeads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    max_position_embeddings: required("context_length"),
    rms_norm_eps: shortest(required("attention.layer_norm_rms_epsilon")),
    hidden_act: "silu",
    ...(gguf.optionalAttentionBias && { attention_bias: tensors.has("blk.0.attn_q.bias") }),
    ...(tensors.has("blk.0.ffn_up.bias") && { mlp_bias: true }),
    ...(window !== undefined && { sliding_window: window, use_sliding_window: true, max_window_layers: 0 }),
    rope_parameters: {
      rope_theta: shortest(theta),
      ...ropeScaling(metadata, key, rope, theta, headDim),
      ...gguf.ropeScaling,
      partial_rotary_factor: (rotated ?? headDim) / headDim,
    },
  });
  const config = {
    model_type: modelType,
    vocab_size: tensors.get("token_embd.weight")?.shape[0] ?? metadata.strings("tokenizer.ggml.tokens")?.length,
    tie_word_embeddings: !tensors.has("output.weight"),
    bos_token_id: id("bos") ?? null,
    eos_token_id: [...new Set(ends)],
    ...(!gguf.ownFields && ofLlama()),
    ...gguf.config?.({
      number: (name) => rounded(number(name)),
      required: (name) => shortest(required(name)),
      flag,
      headDim,
    }),
  };
  // What is left goes along, to be named like a field of config.json that nothing reads.
  const prefix = key("");
  const rest = Object.entries(metadata.unread(prefix)).filter(([name]) => !harmless.has(name.slice(prefix.length)));
  return { ...config, ...Object.fromEntries(rest.filter(([, value]) => value !== 0)) };
}

function ropeScaling(
  metadata: Metadata,
  key: (name: string) => string,
  { byFrequency: divisors, short, long }: RopeTensors,
  theta: number,
  headDim: number,
): object {
  const originalKey = key("rope.scaling.original_context_length");
  const type = metadata.string(key("rope.scaling.type")) ?? "linear";
  if (short !== undefined && long !== undefined) {
    const original = metadata.require(metadata.number(originalKey), originalKey);
    const shorter = (factors: Float32Array) => Array.from(factors, shortest);
    return {
      rope_type: "longrope",
      short_factor: shorter(short),
      long_factor: shorter(long),
      original_max_position_embeddings: original,
      factor: metadata.require(metadata.number(key("context_length")), key("context_length")) / original,
      attention_factor: shortest(metadata.number(key("rope.scaling.attn_factor")) ?? 1),
    };
  }
  if (divisors !== undefined) {
    const fitted = fitLlama3Scaling(divisors, theta, headDim);
    if (fitted === undefined) {
      throw new FormatError({
        file: metadata.file,
        field: "rope_freqs.weight",
        problem: "rotary frequencies that are not scaled as in Llama 3 are not supported",
      });
    }
    return {
      rope_type: "llama3",
      factor: fitted.factor,
      low_freq_factor: fitted.lowFreqFactor,
      high_freq_factor: fitted.highFreqFactor,
      original_max_position_embeddings: fitted.originalMaxPositions,
    };
  }
  // llama.cpp takes a factor without a type as linear; older files have it under the second name.
  const factor = metadata.number(key("rope.scaling.factor")) ?? metadata.number(key("rope.scale_linear"));
  if (type === "none" || (type === "linear" && [undefined, 0, 1].includes(factor))) return { rope_type: "default" };
  const weighs = rounded(metadata.number(key("rope.scaling.yarn_log_multiplier")));
  // Other types are refused by name when the config is parsed.
  return {
    rope_type: type,
    factor,
    ...(weighs !== undefined && { mscale: 10 * weighs, mscale_all_dim: 10 * weighs }),
    ...(type === "yarn" && {
      original_max_position_embeddings: metadata.require(metadata.number(originalKey), originalKey),
    }),
  };
}

/** A number, or a list with one entry per layer that are all equal. */
function uniform(metadata: Metadata, key: string): number | undefined {
  if (!ArrayBuffer.isView(metadata.values.get(key))) return metadata.number(key);
  const values = metadata.numbers(key)!;
  if (values.length > 0 && values.every((value: number) => value === values[0])) return values[0];
  throw new FormatError({ file: metadata.file, field: key, problem: "it differs from layer to layer" });
}

const rounded = (value: number | undefined) => (value === undefined ? undefined : shortest(value));

/** The shortest decimal that is the same f32: 1e-5 for 9.999999747378752e-6. */
function shortest(value: number): number {
  const short = Number(value.toPrecision(7));
  return Math.fround(short) === value ? short : value;
}
