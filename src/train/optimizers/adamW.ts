import { stateOf } from "../state.js";
import { squaredNorm, zerosLike } from "../values.js";
import { type AdamOptions, moments } from "./adam.js";
import type { Link } from "./link.js";
import type { Schedule } from "./schedule.js";

export interface OptimizerOptions extends AdamOptions {
  rate: Schedule;
  /** Decoupled decay of `decays`. Default 0. */
  weightDecay?: number;
  /** Parameters the decay applies to. Default: all. */
  decays?: (name: string) => boolean;
  /** Longest gradient; unlimited by default. */
  clip?: number;
}

/**
 * Clipping, Adam, decoupled weight decay, learning rate (Loshchilov, Hutter 2019, arXiv:1711.05101). To the bit what
 * `chain(clipByNorm, adam, decayWeights, descend)` gives, in one pass over the arrays instead of five: on a model of millions of
 * parameters that is most of a step outside of the gradient.
 */
export function adamW(options: OptimizerOptions): Link {
  const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0, decays = () => true, clip, rate } = options;
  return {
    init: (weights) => ({ mean: stateOf(zerosLike(weights)), square: stateOf(zerosLike(weights)) }),
    update(updates, state, weights, step) {
      const meanCorrection = 1 / (1 - beta1 ** (step + 1));
      const squareCorrection = 1 / (1 - beta2 ** (step + 1));
      const norm = clip === undefined ? 0 : Math.sqrt(squaredNorm(updates.values()));
      const shorten = clip !== undefined && norm > clip ? clip / norm : 1;
      const factor = -rate(step);
      for (const [name, g] of updates) {
        const { mean, square } = moments(state, name);
        const w = weights.get(name)!;
        const decay = weightDecay !== 0 && decays(name) ? weightDecay : 0;
        for (let i = 0; i < g.length; i++) {
          // Each assignment to g rounds as a pass of its own would.
          if (shorten !== 1) g[i] *= shorten;
          mean[i] = beta1 * mean[i] + (1 - beta1) * g[i];
          square[i] = beta2 * square[i] + (1 - beta2) * g[i] * g[i];
          g[i] = (mean[i] * meanCorrection) / (Math.sqrt(square[i] * squareCorrection) + epsilon);
          if (decay !== 0) g[i] += decay * w[i];
          g[i] *= factor;
        }
      }
    },
  };
}
