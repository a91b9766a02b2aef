import type { Architecture } from "./index.js";

/** Qwen3, dense (arXiv 2505.09388): the heads of q and k are normalised one by one before the rotation. */
export const architecture: Architecture = {
  traits: ({ attentionBias }) => ({
    qkvBias: attentionBias,
    outputBias: attentionBias,
    mlpBias: false,
    qkNorm: true,
  }),
};
