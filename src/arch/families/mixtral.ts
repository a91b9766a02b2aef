import { optional, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { preNorm, stored } from "../parts.js";
import { attention, llamaLike, preNorms, routed, sightOf } from "./llamaLike.js";
import { mistralDefaults } from "./mistral.js";

/** Mixtral (arXiv 2401.04088): Mistral whose MLPs are mixtures of experts, the weights of the chosen adding up to 1. */
export const mixtral = family({
  modelType: "mixtral",
  config: decoderConfig(mistralDefaults, {
    sliding_window: optional(positions),
    ...expertFields({ perToken: 2, balance: 0.001 }),
  }).transform(withExperts(8)),
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(
        preNorms(block),
        attention(block, { sight: sightOf(config.sliding_window) }),
        routed(block, {
          count: config.experts,
          router: {
            perToken: config.num_experts_per_tok,
            score: "softmax",
            normalise: true,
            balance: config.router_aux_loss_coef,
          },
          gate: "block_sparse_moe.gate",
          expert(e) {
            const map = (name: string) => stored(`${block.at}.block_sparse_moe.experts.${e}.${name}`);
            return { gate: map("w1"), up: map("w3"), down: map("w2") };
          },
        }),
      ),
    ),
});
