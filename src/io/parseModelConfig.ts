import { z } from "zod";
import { type ActivationFunction, FormatError, quote } from "../core/index.js";
import type { BlockShape, ExpertsConfig, ModelConfig } from "./modelConfig.js";
import { refuseQuantized } from "./quantizedWeights.js";
import { parseRope, ropeFields } from "./ropeConfig.js";
import { checkSchema } from "./schema.js";

/** A size a config may ask for. The bounds are several times those of any known model; memory is sized by them. */
const size = (max: number) => z.int().min(1).max(max);
/** Left out and null mean the same in these files. */
const optional = <T>(type: z.ZodType<T>) => type.nullish().transform((value) => value ?? undefined);
const tokenId = z
  .int()
  .min(-(2 ** 31))
  .max(2 ** 31);
const tokenIds = z.union([tokenId.transform((id) => [id]), z.array(tokenId).max(1024)]);

const maxLayers = 4096;
/** Over all layers. */
const maxExperts = 65536;

const fields = z.object({
  vocab_size: size(2 ** 24),
  hidden_size: size(2 ** 17),
  intermediate_size: size(2 ** 20),
  num_hidden_layers: size(maxLayers),
  num_attention_heads: size(4096),
  // Left out, it takes the default of the architecture; null means one per query head.
  num_key_value_heads: size(4096).nullish(),
  head_dim: optional(size(4096)),
  max_position_embeddings: optional(size(2 ** 30)),
  rms_norm_eps: optional(z.number().min(0).max(1)),
  hidden_act: optional(z.string()),
  tie_word_embeddings: optional(z.boolean()),
  attention_bias: optional(z.boolean()),
  mlp_bias: optional(z.boolean()),
  // Left out, it takes the default of the architecture; null means none.
  sliding_window: size(2 ** 30).nullish(),
  use_sliding_window: optional(z.boolean()),
  max_window_layers: optional(
    z
      .int()
      .min(0)
      .max(2 ** 30),
  ),
  num_local_experts: optional(size(1024)),
  num_experts_per_tok: optional(size(1024)),
  router_aux_loss_coef: optional(z.number().min(0)),
  layer_types: optional(z.array(z.enum(["full_attention", "sliding_attention"])).max(maxLayers)),
  bos_token_id: tokenId.nullish(),
  eos_token_id: tokenIds.nullish(),
  quantization_config: optional(z.unknown()),
  ...ropeFields,
});

type Fields = z.infer<typeof fields>;

/** What a model type adds to the shared fields: its defaults and the parts that its config does not spell out. */
interface ModelType {
  /** Where `num_key_value_heads` is left out; undefined is one per query head. */
  kvHeads?: number;
  /** Where `head_dim` is left out or null; undefined is `hidden_size / num_attention_heads`. */
  headDim?: number;
  maxPositions: number;
  bosTokenId?: number;
  eosTokenIds: readonly number[];
  attentionBias(config: Fields): boolean;
  mlpBias(config: Fields): boolean;
  qkNorm: boolean;
  slidingWindow(config: Fields, layer: number): number | undefined;
  experts?(config: Fields): ExpertsConfig;
}

/** Defaults as in the configuration classes of transformers. */
const mistral: ModelType = {
  kvHeads: 8,
  maxPositions: 131072,
  bosTokenId: 1,
  eosTokenIds: [2],
  attentionBias: () => false,
  mlpBias: () => false,
  qkNorm: false,
  slidingWindow: (config) => (config.sliding_window === undefined ? 4096 : (config.sliding_window ?? undefined)),
};

const modelTypes: Readonly<Record<string, ModelType>> = {
  llama: {
    maxPositions: 2048,
    bosTokenId: 1,
    eosTokenIds: [2],
    attentionBias: (config) => config.attention_bias ?? false,
    mlpBias: (config) => config.mlp_bias ?? false,
    qkNorm: false,
    slidingWindow: () => undefined,
  },
  mistral,
  mixtral: {
    ...mistral,
    slidingWindow: (config) => config.sliding_window ?? undefined,
    experts: (config) => ({
      count: config.num_local_experts ?? 8,
      perToken: config.num_experts_per_tok ?? 2,
      balance: config.router_aux_loss_coef ?? 0.001,
    }),
  },
  qwen2: {
    kvHeads: 32,
    maxPositions: 32768,
    eosTokenIds: [],
    // Always on q, k and v, never on o; the config has no field for it.
    attentionBias: () => true,
    mlpBias: () => false,
    qkNorm: false,
    slidingWindow: qwenWindow,
  },
  qwen3: {
    kvHeads: 32,
    headDim: 128,
    maxPositions: 32768,
    eosTokenIds: [],
    attentionBias: (config) => config.attention_bias ?? false,
    mlpBias: () => false,
    qkNorm: true,
    slidingWindow: qwenWindow,
  },
};

/** Qwen windows only the layers from `max_window_layers` on, or those `layer_types` names, and only when switched on. */
function qwenWindow(config: Fields, layer: number): number | undefined {
  if (config.use_sliding_window !== true || config.sliding_window === null) return undefined;
  const windowed =
    config.layer_types === undefined
      ? layer >= (config.max_window_layers ?? 28)
      : config.layer_types[layer] === "sliding_attention";
  return windowed ? (config.sliding_window ?? 4096) : undefined;
}

const activations: Readonly<Record<string, ActivationFunction>> = {
  silu: "silu",
  swish: "silu",
  relu: "relu",
  relu2: "relu2",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_fast: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
};

/**
 * Checks a parsed `config.json` of a decoder and puts it in our names. Accepts the old and the new spelling of the rotary
 * embedding, and fields left out or null as transformers does. Stored dtypes are not read here: each tensor tells its own.
 * @param raw parsed JSON
 * @param generation parsed `generation_config.json`, whose `eos_token_id` wins over that of the config
 * @param blocks of rarefy.json, when the sizes of the blocks differ from those of the config
 * @param file for messages
 * @throws FormatError naming the field
 */
export function parseModelConfig(
  raw: unknown,
  file: string,
  generation?: unknown,
  blocks?: readonly BlockShape[],
): ModelConfig {
  const { model_type: modelType } = checkSchema(z.object({ model_type: z.string() }), raw, file);
  const type = lookUp(modelTypes, modelType, file, "model_type", "model type");
  const config = checkSchema(fields, raw, file);
  const fail = (field: string, problem: string, expected: string) =>
    new FormatError({ file, field, problem, expected });

  if (config.quantization_config !== undefined) refuseQuantized(config.quantization_config, file);

  const queryHeads = config.num_attention_heads;
  const intermediateSize = config.intermediate_size;
  const kvHeads =
    config.num_key_value_heads === undefined
      ? (type.kvHeads ?? queryHeads)
      : (config.num_key_value_heads ?? queryHeads);
  if (queryHeads % kvHeads !== 0) {
    throw fail("num_key_value_heads", `${kvHeads} for ${queryHeads} query heads`, "a divisor of num_attention_heads");
  }

  const headDim = config.head_dim ?? type.headDim ?? config.hidden_size / queryHeads;
  if (!Number.isInteger(headDim)) {
    throw fail("hidden_size", `size ${config.hidden_size}`, `a multiple of num_attention_heads, ${queryHeads}`);
  }
  if (headDim % 2 !== 0) throw fail("head_dim", `size ${headDim}`, "an even size, for the rotary embedding");

  const layers = config.num_hidden_layers;
  if (config.layer_types !== undefined && config.layer_types.length !== layers) {
    throw fail("layer_types", `${config.layer_types.length} entries`, `${layers}, one per layer`);
  }

  checkBlocks(blocks, layers);
  const experts = type.experts?.(config);
  if (experts !== undefined && experts.count * layers > maxExperts) {
    throw fail("num_local_experts", `${experts.count} in each of ${layers} layers`, `at most ${maxExperts} in all`);
  }
  if (experts !== undefined && experts.perToken > experts.count) {
    throw fail("num_experts_per_tok", `${experts.perToken} of ${experts.count} experts`, "no more than there are");
  }

  // Ids outside the vocabulary (-1 in old files) can neither be fed nor produced.
  const inVocabulary = (id: number) => id >= 0 && id < config.vocab_size;
  const bosTokenId = config.bos_token_id === undefined ? type.bosTokenId : (config.bos_token_id ?? undefined);
  const eosTokenIds =
    generationEos(generation) ?? (config.eos_token_id === undefined ? type.eosTokenIds : (config.eos_token_id ?? []));

  return {
    modelType,
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    intermediateSize,
    layers,
    queryHeads,
    kvHeads,
    headDim,
    maxPositions: config.max_position_embeddings ?? type.maxPositions,
    rmsNormEpsilon: config.rms_norm_eps ?? 1e-6,
    rope: parseRope(config, file),
    activation: lookUp(activations, config.hidden_act ?? "silu", file, "hidden_act", "activation function"),
    tiedEmbeddings: config.tie_word_embeddings ?? false,
    attentionBias: type.attentionBias(config),
    mlpBias: type.mlpBias(config),
    qkNorm: type.qkNorm,
    blocks: blocks ?? Array.from({ length: layers }, () => ({ queryHeads, kvHeads, intermediateSize })),
    ...(experts && { experts }),
    slidingWindows: Array.from({ length: layers }, (_, layer) => type.slidingWindow(config, layer)),
    bosTokenId: bosTokenId !== undefined && inVocabulary(bosTokenId) ? bosTokenId : undefined,
    eosTokenIds: eosTokenIds.filter(inVocabulary),
  };
}

function checkBlocks(blocks: readonly BlockShape[] | undefined, layers: number): void {
  if (blocks === undefined) return;
  const fail = (field: string, problem: string, expected: string) =>
    new FormatError({ file: "rarefy.json", field, problem, expected });
  if (blocks.length !== layers) throw fail("blocks", `${blocks.length} entries`, `${layers}, one per layer`);
  for (const [layer, { queryHeads, kvHeads }] of blocks.entries()) {
    if (queryHeads % kvHeads === 0) continue;
    throw fail(`blocks.${layer}.kvHeads`, `${kvHeads} for ${queryHeads} query heads`, "a divisor of queryHeads");
  }
}

function generationEos(generation: unknown): readonly number[] | undefined {
  if (generation === undefined) return undefined;
  const schema = z.object({ eos_token_id: optional(tokenIds) });
  return checkSchema(schema, generation, "generation_config.json").eos_token_id;
}

/** An entry of a table by a name taken from a file. */
function lookUp<T>(table: Readonly<Record<string, T>>, name: string, file: string, field: string, what: string): T {
  if (Object.hasOwn(table, name)) return table[name];
  throw new FormatError({
    file,
    field,
    problem: `${what} ${quote(name)} is not supported`,
    expected: `one of ${Object.keys(table).join(", ")}`,
  });
}
