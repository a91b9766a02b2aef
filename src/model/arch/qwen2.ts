import type { Architecture } from "./index.js";

/** Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases on q, k and v only. */
export const architecture: Architecture = {
  traits: () => ({ qkvBias: true, outputBias: false, mlpBias: false, qkNorm: false }),
};
