import { stateOf } from "../state.js";
import { zerosLike } from "../values.js";
import { type AdamOptions, moments } from "./adam.js";
import type { Link } from "./link.js";
import type { Masks } from "./links.js";

/** What becomes of the mean gradient of a pruned weight: m̃ from the mean m, the weight w and the step. */
export type PrunedMean = (mean: number, weight: number, step: number) => number;

/**
 * Adam whose pruned weights are pulled towards 0: the first moment collects raw gradients only; the decay joins after it
 * and enters the second moment, which AdamW's decay and an L1 gradient do not. AST and CAST differ in `pull` alone.
 */
export function adamWithMaskedDecay(
  { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 }: AdamOptions,
  masks: Masks,
  pull: PrunedMean,
): Link {
  return {
    init: (weights) => ({ mean: stateOf(zerosLike(weights)), square: stateOf(zerosLike(weights)) }),
    update(updates, state, weights, step) {
      const meanCorrection = 1 / (1 - beta1 ** (step + 1));
      const squareCorrection = 1 / (1 - beta2 ** (step + 1));
      for (const [name, g] of updates) {
        const { mean, square } = moments(state, name);
        const w = weights.get(name)!;
        const mask = masks.get(name);
        for (let i = 0; i < g.length; i++) {
          mean[i] = beta1 * mean[i] + (1 - beta1) * g[i];
          const pulled = mask?.[i] === 0 ? pull(mean[i], w[i], step) : mean[i];
          square[i] = beta2 * square[i] + (1 - beta2) * pulled * pulled;
          g[i] = (pulled * meanCorrection) / (Math.sqrt(square[i] * squareCorrection) + epsilon);
        }
      }
    },
  };
}
