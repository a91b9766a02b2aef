import * as z from "zod/mini";
import { flag, maxLayers, orElse, positions, width } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep } from "../derive.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import {
  attention,
  type Block,
  expertModules,
  ggufExperts,
  llamaLike,
  mlp,
  preNorms,
  routed,
  sightOf,
} from "./llamaLike.js";
import { qwenFields } from "./qwen2.js";

/** Qwen3 with mixtures of experts (arXiv 2505.09388), in all layers or in some. */
export const qwen3Moe = family({
  modelType: "qwen3_moe",
  config: z.pipe(
    decoderConfig(
      { kvHeads: 4, maxPositions: 32768 },
      {
        sliding_window: qwenFields.sliding_window,
        use_sliding_window: flag(false),
        attention_bias: flag(false),
        moe_intermediate_size: orElse(width, 768),
        norm_topk_prob: flag(false),
        // Every so many layers there is a mixture, but not in those of the list.
        decoder_sparse_step: orElse(positions, 1),
        mlp_only_layers: orElse(z.array(z.int().check(z.gte(0), z.lte(maxLayers))).check(z.maxLength(maxLayers)), []),
        ...expertFields({ perToken: 8, balance: 0.001 }),
      },
    ),
    z.transform(withExperts(128)),
  ),
  spec(config, shapes) {
    const isMixture = (layer: number) =>
      (layer + 1) % config.decoder_sparse_step === 0 && !config.mlp_only_layers.includes(layer);
    const intermediateSize = (layer: number) =>
      isMixture(layer) ? config.moe_intermediate_size : config.intermediate_size;
    const describe = (block: Block) =>
      preNorm(
        preNorms(block),
        attention(block, {
          qkvBias: config.attention_bias,
          outputBias: config.attention_bias,
          headNorms: true,
          sight: sightOf(config.use_sliding_window ? config.sliding_window : undefined),
        }),
        isMixture(block.layer)
          ? routed(block, {
              count: config.experts,
              router: {
                perToken: config.num_experts_per_tok,
                score: "softmax",
                normalise: config.norm_topk_prob,
                balance: config.router_aux_loss_coef,
              },
              gate: "mlp.gate",
              expert: expertModules(`${block.at}.mlp.experts`),
            })
          : mlp(block),
      );
    return llamaLike(config, shapes, describe, { intermediateSize });
  },
  gguf: {
    architecture: "qwen3moe",
    ...ggufExperts,
    config: (keys) => ({
      num_experts: keys.required("expert_count"),
      num_experts_per_tok: keys.required("expert_used_count"),
      moe_intermediate_size: keys.required("expert_feed_forward_length"),
      norm_topk_prob: true,
    }),
    counts: ({ intermediateSize }) => ({ expert_feed_forward_length: intermediateSize }),
    problem: ({ spec }) => {
      if (spec.blocks.some((block) => findStep(block, "mixture") === undefined)) return "not all layers are mixtures";
      return !findStep(spec.blocks[0], "mixture")!.router.normalise
        ? "the weights of the chosen experts are left as they are"
        : undefined;
    },
  },
});
