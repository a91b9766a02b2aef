import { optional, positions } from "../configFields.js";
import { type DecoderConfig, decoderConfig } from "../decoderConfig.js";
import { checkExperts, type ExpertFields, expertFields } from "../expertConfig.js";
import { family } from "../family.js";
import { gated, mixture, type Part, preNorm, stored } from "../parts.js";
import { attention, type Block, llamaLike, preNorms, sightOf } from "./llamaLike.js";
import { mistralDefaults } from "./mistral.js";

/** Mixtral (arXiv 2401.04088): Mistral whose MLPs are mixtures of experts, the weights of the chosen adding up to 1. */
export const mixtral = family({
  modelType: "mixtral",
  config: decoderConfig(mistralDefaults, {
    sliding_window: optional(positions),
    ...expertFields({ count: 8, perToken: 2, balance: 0.001 }),
  }).superRefine(checkExperts),
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(preNorms(block), attention(block, { sight: sightOf(config.sliding_window) }), experts(block, config)),
    ),
});

function experts({ at, intermediateSize }: Block, config: DecoderConfig & ExpertFields): Part {
  const sizes = { hiddenSize: config.hidden_size, intermediateSize };
  const router = {
    perToken: config.num_experts_per_tok,
    score: "softmax" as const,
    normalise: true,
    balance: config.router_aux_loss_coef,
  };
  const moe = `${at}.block_sparse_moe`;
  return mixture(
    config.num_local_experts,
    router,
    { router: stored(`${moe}.gate`), hiddenSize: sizes.hiddenSize },
    (e) => {
      const map = (name: string) => stored(`${moe}.experts.${e}.${name}`);
      return gated(sizes, { gate: map("w1"), up: map("w3"), down: map("w2") }, { f: config.hidden_act, expert: e });
    },
  );
}
