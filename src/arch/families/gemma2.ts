import * as z from "zod";
import { activation, flag, orElse, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { sandwich } from "../parts.js";
import { attention, type Block, llamaLike, mlp, normOf, sightOf } from "./llamaLike.js";

/** A cap of scores or logits; null means none. */
export const cap = (fallback: number | null) => z.number().gt(0).max(1e6).nullable().default(fallback);

/** Before and behind attention, before and behind the MLP. */
export const sandwichNorms = (block: Block) =>
  [
    normOf(block, "input_layernorm", true),
    normOf(block, "post_attention_layernorm", true),
    normOf(block, "pre_feedforward_layernorm", true),
    normOf(block, "post_feedforward_layernorm", true),
  ] as const;

/** Gemma 2 (arXiv 2408.00118): norms on both sides with weights 1 + w, capped scores and logits, every other layer windowed. */
export const gemma2 = family({
  modelType: "gemma2",
  config: decoderConfig(
    { kvHeads: 4, headDim: 256, maxPositions: 8192, bos: 2, eos: [1], tied: true },
    {
      hidden_activation: activation("gelu_pytorch_tanh"),
      query_pre_attn_scalar: orElse(z.number().gt(0).max(1e6), 256),
      attn_logit_softcapping: cap(50),
      final_logit_softcapping: cap(30),
      sliding_window: positions.nullable().default(4096),
      attention_bias: flag(false),
    },
  ),
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
});
