import * as z from "zod/mini";
import { flag, optional } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep } from "../derive.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import { attention, expertModules, ggufExperts, llamaLike, preNorms, routed } from "./llamaLike.js";

/** OLMoE (arXiv 2409.02060): all heads of q and of k are normalised at once, and the weights of the chosen stay as they are. */
export const olmoe = family({
  modelType: "olmoe",
  config: z.pipe(
    decoderConfig(
      { maxPositions: 4096, epsilon: 1e-5, eos: [50279] },
      {
        attention_bias: flag(false),
        clip_qkv: optional(z.number().check(z.gt(0), z.lte(1e6))),
        norm_topk_prob: flag(false),
        ...expertFields({ perToken: 8, balance: 0.01 }),
      },
    ),
    z.transform(withExperts(64)),
  ),
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(
        preNorms(block),
        attention(block, {
          qkvBias: config.attention_bias,
          outputBias: config.attention_bias,
          headNorms: "together",
          clip: config.clip_qkv,
        }),
        routed(block, {
          count: config.experts,
          router: {
            perToken: config.num_experts_per_tok,
            score: "softmax",
            normalise: config.norm_topk_prob,
            balance: config.router_aux_loss_coef,
          },
          gate: "mlp.gate",
          expert: expertModules(`${block.at}.mlp.experts`),
        }),
      ),
    ),
  gguf: {
    architecture: "olmoe",
    ...ggufExperts,
    config: (keys) => ({
      num_experts: keys.required("expert_count"),
      num_experts_per_tok: keys.required("expert_used_count"),
      norm_topk_prob: false,
    }),
    problem: ({ spec, queryHeads, kvHeads }) => {
      if (kvHeads !== queryHeads) return "it has fewer heads of keys than of queries, which are normalised at once";
      if (spec.blocks.some(({ steps }) => steps.some((step) => step.do === "cap")))
        return "its queries, keys and values are clipped";
      return findStep(spec.blocks[0], "mixture")!.router.normalise
        ? "the weights of the chosen experts are made to add up to 1"
        : undefined;
    },
  },
});
