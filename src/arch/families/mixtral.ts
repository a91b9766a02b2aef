import * as z from "zod/mini";
import { optional, orElse, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep } from "../derive.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { preNorm, stored } from "../parts.js";
import type { RouterSpec } from "../spec.js";
import { attention, ggufMixture, llamaLike, preNorms, routed, sightOf } from "./llamaLike.js";
import { mistralDefaults } from "./mistral.js";

const gate = "block_sparse_moe.gate";

/** What `router_type` means, for the router of this name. */
const routers: Record<
  "softmax" | "bias" | "relu",
  (name: string, experts: number) => Pick<RouterSpec, "score" | "normalise" | "choiceBias">
> = {
  softmax: () => ({ score: "softmax", normalise: true }),
  // Balance without a loss (arXiv 2408.15664).
  bias: (name, experts) => ({
    score: "sigmoid",
    choiceBias: { tensor: `${name}.e_score_correction_bias`, shape: [experts] },
    normalise: true,
  }),
  // ReMoE (arXiv 2412.14711).
  relu: () => ({ score: "relu", normalise: false }),
};

/** Mixtral (arXiv 2401.04088): Mistral whose MLPs are mixtures of experts, the weights of the chosen adding up to 1. */
export const mixtral = family({
  modelType: "mixtral",
  config: z.pipe(
    decoderConfig(mistralDefaults, {
      sliding_window: optional(positions),
      // Written by `rarefy train`, where experts are not chosen as in Mixtral.
      router_type: orElse(z.enum(["softmax", "bias", "relu"]), "softmax" as const),
      ...expertFields({ perToken: 2, balance: 0.001 }),
    }),
    z.transform(withExperts(8)),
  ),
  ignored: ["attention_bias", "mlp_bias"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(
        preNorms(block),
        attention(block, { sight: sightOf(config.sliding_window) }),
        routed(block, {
          count: config.experts,
          router: {
            perToken: config.num_experts_per_tok,
            balance: config.router_aux_loss_coef,
            ...routers[config.router_type](`${block.at}.${gate}`, config.experts),
          },
          gate,
          expert(e) {
            const map = (name: string) => stored(`${block.at}.block_sparse_moe.experts.${e}.${name}`);
            return { gate: map("w1"), up: map("w3"), down: map("w2") };
          },
        }),
      ),
    ),
  gguf: {
    architecture: "llama",
    rotaryNeighbours: true,
    ...ggufMixture(gate, "block_sparse_moe.experts", ["w1", "w3", "w2"]),
    config: (keys) => ({
      num_local_experts: keys.required("expert_count"),
      num_experts_per_tok: keys.required("expert_used_count"),
    }),
    problem: ({ spec }) => {
      const { score } = findStep(spec.blocks[0], "mixture")!.router;
      return score === "softmax" ? undefined : `its experts are chosen by ${score}`;
    },
  },
});
