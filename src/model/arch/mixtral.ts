import type { MlpProjection } from "../layout.js";
import type { Architecture } from "./index.js";

const names: Readonly<Record<MlpProjection, string>> = { gate_proj: "w1", up_proj: "w3", down_proj: "w2" };

/** Mixtral (arXiv 2401.04088): Mistral whose MLPs are mixtures of experts, the weights of the chosen adding up to 1. */
export const architecture: Architecture = {
  traits: () => ({
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    experts: {
      router: "block_sparse_moe.gate",
      linear: (expert, projection) => `block_sparse_moe.experts.${expert}.${names[projection]}`,
      normalise: true,
    },
  }),
};
