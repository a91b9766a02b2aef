import * as z from "zod/mini";
import { activation, flag, orElse, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep } from "../derive.js";
import { family } from "../family.js";
import type { GgufFamily, GgufKeys } from "../gguf.js";
import type { ModelConfig } from "../modelSizes.js";
import { sandwich } from "../parts.js";
import { attention, type Block, ggufNames, llamaLike, mlp, normOf, sightOf } from "./llamaLike.js";

/** A cap of scores or logits; null means none. */
export const cap = (fallback: number | null) => z._default(z.nullable(z.number().check(z.gt(0), z.lte(1e6))), fallback);

/** Before and behind attention, before and behind the MLP. */
export const sandwichNorms = (block: Block) =>
  [
    normOf(block, "input_layernorm", true),
    normOf(block, "post_attention_layernorm", true),
    normOf(block, "pre_feedforward_layernorm", true),
    normOf(block, "post_feedforward_layernorm", true),
  ] as const;

export const gemmaNames: GgufFamily["names"] = {
  ...ggufNames,
  inBlock: [
    ...ggufNames.inBlock.filter(([gguf]) => gguf !== "ffn_norm"),
    ["post_attention_norm", "post_attention_layernorm"],
    ["ffn_norm", "pre_feedforward_layernorm"],
    ["post_ffw_norm", "post_feedforward_layernorm"],
  ],
};

/** llama.cpp knows the largest model of a family, whose scores are scaled by another size, by its number of layers. */
const scoreSize = (layers: number, ofLargest: number, { hidden, heads, headDim }: Record<string, number>) =>
  layers === ofLargest ? hidden / heads : headDim;

export const gemmaConfig = ({ required, number, headDim }: GgufKeys, layersOfLargest: number) => ({
  hidden_activation: "gelu_pytorch_tanh",
  query_pre_attn_scalar: scoreSize(required("block_count"), layersOfLargest, {
    hidden: required("embedding_length"),
    heads: required("attention.head_count"),
    headDim,
  }),
  sliding_window: number("attention.sliding_window") ?? 4096,
});

export const gemmaKeys = ({ spec }: ModelConfig) => ({
  attn_logit_softcapping: findStep(spec.blocks[0], "attend")?.softcap,
  final_logit_softcapping: spec.head.kind === "vocabulary" ? spec.head.softcap : undefined,
});

/** @param pattern of so many layers the last sees everything, the others a window */
export function gemmaProblem(config: ModelConfig, layersOfLargest: number, pattern: number): string | undefined {
  const { spec, layers, slidingWindows, hiddenSize: hidden, queryHeads: heads, headDim } = config;
  const scale = scoreSize(layers, layersOfLargest, { hidden, heads, headDim }) ** -0.5;
  if (Math.abs(findStep(spec.blocks[0], "attend")!.scale / scale - 1) > 1e-6) {
    return "llama.cpp scales its scores by another size of heads";
  }
  const windowed = slidingWindows.every((window, layer) => (window !== undefined) === ((layer + 1) % pattern !== 0));
  return windowed ? undefined : `llama.cpp gives a window to all layers but every ${pattern}th`;
}

/** Gemma 2 (arXiv 2408.00118): norms on both sides with weights 1 + w, capped scores and logits, every other layer windowed. */
export const gemma2 = family({
  modelType: "gemma2",
  config: decoderConfig(
    { kvHeads: 4, headDim: 256, maxPositions: 8192, bos: 2, eos: [1], tied: true },
    {
      hidden_activation: activation("gelu_pytorch_tanh"),
      query_pre_attn_scalar: orElse(z.number().check(z.gt(0), z.lte(1e6)), 256),
      attn_logit_softcapping: cap(50),
      final_logit_softcapping: cap(30),
      sliding_window: z._default(z.nullable(positions), 4096),
      attention_bias: flag(false),
      // True in encoders made of these models.
      use_bidirectional_attention: orElse(z.literal(false), false),
    },
  ),
  ignored: ["use_sliding_window", "max_window_layers"],
  spec: (config, shapes) =>
    llamaLike(
      { ...config, hidden_act: config.hidden_activation },
      shapes,
      (block) => {
        const windowed =
          config.layer_types?.[block.layer] ?? (block.layer % 2 === 0 ? "sliding_attention" : "full_attention");
        return sandwich(
          sandwichNorms(block),
          attention(block, {
            qkvBias: config.attention_bias,
            outputBias: config.attention_bias,
            scale: config.query_pre_attn_scalar ** -0.5,
            softcap: config.attn_logit_softcapping ?? undefined,
            sight: sightOf(windowed === "sliding_attention" ? config.sliding_window : undefined),
          }),
          mlp(block),
        );
      },
      {
        embeddingScale: Math.sqrt(config.hidden_size),
        logitCap: config.final_logit_softcapping ?? undefined,
        plusOne: true,
      },
    ),
  gguf: {
    architecture: "gemma2",
    ownWindows: true,
    plusOneNorms: true,
    activation: "geluTanh",
    names: gemmaNames,
    config: (keys) => ({
      ...gemmaConfig(keys, 46),
      attn_logit_softcapping: keys.number("attn_logit_softcapping") ?? 50,
      final_logit_softcapping: keys.number("final_logit_softcapping") ?? 30,
    }),
    keys: gemmaKeys,
    problem: (config) => gemmaProblem(config, 46, 2),
  },
});
