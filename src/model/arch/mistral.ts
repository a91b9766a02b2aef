import type { Architecture } from "./index.js";

/** Mistral (arXiv 2310.06825): Llama without biases; the first releases attend through a sliding window. */
export const architecture: Architecture = {
  traits: () => ({ qkvBias: false, outputBias: false, mlpBias: false, qkNorm: false }),
};
