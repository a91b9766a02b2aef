import type { DecoderConfig } from "../decoderConfig.js";
import type { GgufFamily } from "../gguf.js";
import * as parts from "../parts.js";
import type { BlockShape, BlockSpec, ModelSpec, NormSpec, RouterSpec, SightSpec } from "../spec.js";

/** What Llama's relatives share in Hugging Face's library: the names of their tensors and how a decoder is put together. */

/** A block that is being described. */
export interface Block extends BlockShape {
  config: DecoderConfig;
  layer: number;
  /** What its tensors' names begin with. */
  at: string;
}

export interface LlamaLikeOptions {
  embeddingScale?: number;
  logitCap?: number;
  plusOne?: true;
  /** Of the MLP of a layer, or of each of its experts; default `intermediate_size`. */
  intermediateSize?: (layer: number) => number;
}

export function llamaLike(
  config: DecoderConfig,
  shapes: readonly BlockShape[] | undefined,
  block: (block: Block) => BlockSpec,
  { embeddingScale, logitCap, plusOne, intermediateSize = () => config.intermediate_size }: LlamaLikeOptions = {},
): Omit<ModelSpec, "modelType"> {
  const { hidden_size: hiddenSize, vocab_size: vocabSize } = config;
  const shape = (layer: number): BlockShape => ({
    queryHeads: config.num_attention_heads,
    kvHeads: config.num_key_value_heads,
    intermediateSize: intermediateSize(layer),
  });
  const table = { tensor: "model.embed_tokens.weight", shape: [vocabSize, hiddenSize] };
  const head = parts.linearMap("lm_head", vocabSize, hiddenSize, parts.stored("lm_head"));
  return {
    hiddenSize,
    vocabSize,
    maxPositions: config.max_position_embeddings,
    bosTokenId: config.bos_token_id,
    eosTokenIds: config.eos_token_id,
    embedding: { table, ...(embeddingScale !== undefined && { scale: embeddingScale }) },
    blocks: Array.from({ length: config.num_hidden_layers }, (_, layer) =>
      block({ config, layer, at: `model.layers.${layer}`, ...(shapes?.[layer] ?? shape(layer)) }),
    ),
    finalNorm: rms(config, "model.norm", hiddenSize, plusOne),
    head: {
      kind: "vocabulary",
      map: config.tie_word_embeddings ? { ...head, weight: table } : head,
      ...(logitCap !== undefined && { softcap: logitCap }),
    },
  };
}

const rms = ({ rms_norm_eps: epsilon }: DecoderConfig, name: string, length: number, plusOne?: true): NormSpec => ({
  kind: "rms",
  weight: { tensor: `${name}.weight`, shape: [length] },
  epsilon,
  ...(plusOne && { plusOne }),
});

/** The norm of this name in a block, as long as the residual stream or as `length`. */
export const normOf = ({ config, at }: Block, name: string, plusOne?: true, length = config.hidden_size): NormSpec =>
  rms(config, `${at}.${name}`, length, plusOne);

export const preNorms = (block: Block): [NormSpec, NormSpec] => [
  normOf(block, "input_layernorm"),
  normOf(block, "post_attention_layernorm"),
];

export interface LlamaAttentionOptions extends Partial<Omit<parts.AttentionOptions, "headNorms">> {
  qkvBias?: boolean;
  outputBias?: boolean;
  /** Norms of q and k: of every head by itself, or of all heads at once. */
  headNorms?: boolean | "together";
  plusOne?: true;
}

export function attention(block: Block, options: LlamaAttentionOptions = {}): parts.Part {
  const { config, at, queryHeads, kvHeads } = block;
  const { qkvBias, outputBias, headNorms, plusOne, ...given } = options;
  const map = (name: string, bias?: boolean) => parts.stored(`${at}.self_attn.${name}`, bias);
  const sizes = { hiddenSize: config.hidden_size, queryHeads, kvHeads, headDim: config.head_dim };
  const where = {
    q: map("q_proj", qkvBias),
    k: map("k_proj", qkvBias),
    v: map("v_proj", qkvBias),
    o: map("o_proj", outputBias),
  };
  const norm = (name: string, heads: number) =>
    normOf(block, `self_attn.${name}`, plusOne, config.head_dim * (headNorms === "together" ? heads : 1));
  return parts.grouped(sizes, where, {
    sight: { kind: "causal" },
    rotation: { rope: config.rope, width: config.rotaryWidth },
    ...given,
    ...(headNorms && { headNorms: { q: norm("q_norm", queryHeads), k: norm("k_norm", kvHeads) } }),
  });
}

export function mlp({ config, at, intermediateSize }: Block, bias = false): parts.Part {
  const map = (name: string) => parts.stored(`${at}.mlp.${name}`, bias);
  const where = { gate: map("gate_proj"), up: map("up_proj"), down: map("down_proj") };
  return parts.gated({ hiddenSize: config.hidden_size, intermediateSize }, where, { f: config.hidden_act });
}

export const sightOf = (window: number | null | undefined): SightSpec =>
  window == null ? { kind: "causal" } : { kind: "window", window };

export const ggufNames: GgufFamily["names"] = {
  layers: "model.layers",
  outside: [
    ["token_embd", "model.embed_tokens"],
    ["output_norm", "model.norm"],
    ["output", "lm_head"],
  ],
  inBlock: [
    ["attn_norm", "input_layernorm"],
    ["attn_q", "self_attn.q_proj"],
    ["attn_k", "self_attn.k_proj"],
    ["attn_v", "self_attn.v_proj"],
    ["attn_output", "self_attn.o_proj"],
    ["attn_q_norm", "self_attn.q_norm"],
    ["attn_k_norm", "self_attn.k_norm"],
    ["ffn_norm", "post_attention_layernorm"],
    ["ffn_gate", "mlp.gate_proj"],
    ["ffn_up", "mlp.up_proj"],
    ["ffn_down", "mlp.down_proj"],
  ],
};

/** How files name the mixtures of a family. @param gate the module that chooses @param maps of an expert: gate, up and down */
export const ggufMixture = (
  gate: string,
  module: string,
  [gateProj, upProj, downProj]: readonly [string, string, string],
): Pick<GgufFamily, "experts" | "names"> => ({
  names: { ...ggufNames, inBlock: [...ggufNames.inBlock, ["ffn_gate_inp", gate]] },
  experts: {
    module,
    maps: [
      ["ffn_gate_exps", gateProj],
      ["ffn_up_exps", upProj],
      ["ffn_down_exps", downProj],
    ],
  },
});

/** The names of most mixtures. */
export const ggufExperts = ggufMixture("mlp.gate", "mlp.experts", ["gate_proj", "up_proj", "down_proj"]);

export interface RoutedOptions {
  count: number;
  router: Omit<RouterSpec, "map">;
  /** Module that chooses, behind the name of the block. */
  gate: string;
  /** Where the maps of an expert lie. */
  expert: (number: number) => { gate: parts.Stored; up: parts.Stored; down: parts.Stored };
}

/** A mixture of gated MLPs. */
export function routed(
  { config, at, intermediateSize }: Block,
  { count, router, gate, expert }: RoutedOptions,
): parts.Part {
  const sizes = { hiddenSize: config.hidden_size, intermediateSize };
  const where = { router: parts.stored(`${at}.${gate}`), hiddenSize: sizes.hiddenSize };
  return parts.mixture(count, router, where, (e) => parts.gated(sizes, expert(e), { f: config.hidden_act, expert: e }));
}

/** The maps of experts as most checkpoints name them. */
export const expertModules =
  (experts: string): RoutedOptions["expert"] =>
  (e) => {
    const map = (name: string) => parts.stored(`${experts}.${e}.${name}`);
    return { gate: map("gate_proj"), up: map("up_proj"), down: map("down_proj") };
  };
