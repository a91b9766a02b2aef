import type { Activation } from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import type { Sampler } from "../samplers.js";

/**
 * Draws a token from logits [1, logitCols], which are released, as a target would.
 * @returns the law it was drawn from, unless the sampler is greedy
 */
export async function pickFrom(
  model: Model,
  logits: Activation,
  sampler: Sampler,
  occurred: readonly number[],
): Promise<{ id: number; law?: Float64Array }> {
  const { backend, config } = model;
  try {
    if (sampler.greedy) return { id: (await backend.topK(logits, 1))[0].ids[0] };
    const row = (await backend.read(logits)).subarray(0, config.vocabSize);
    const law = sampler.law(row, occurred);
    return { id: sampler.draw(law), law };
  } finally {
    backend.release(logits);
  }
}
