import type { Architecture } from "./index.js";

/** Llama 1 to 3 (arXiv 2302.13971, 2407.21783). */
export const architecture: Architecture = {
  traits: ({ attentionBias, mlpBias }) => ({
    qkvBias: attentionBias,
    outputBias: attentionBias,
    mlpBias,
    qkNorm: false,
  }),
};
