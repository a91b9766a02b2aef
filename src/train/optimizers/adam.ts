import type { State } from "../state.js";
import { stateOf } from "../state.js";
import { type FloatArray, zerosLike } from "../values.js";
import type { Link } from "./link.js";

export interface AdamOptions {
  /** Default 0.9. */
  beta1?: number;
  /** Default 0.999. */
  beta2?: number;
  /** Added to the root. Default 1e-8. */
  epsilon?: number;
}

/**
 * Adam (Kingma, Ba 2015, arXiv:1412.6980): the mean of gradients over the root of the mean of their squares, both
 * corrected for their start at 0. Scale by the learning rate afterwards.
 */
export function adam({ beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 }: AdamOptions = {}): Link {
  return {
    init: (weights) => ({ mean: stateOf(zerosLike(weights)), square: stateOf(zerosLike(weights)) }),
    update(updates, state, _weights, step) {
      const meanCorrection = 1 / (1 - beta1 ** (step + 1));
      const squareCorrection = 1 / (1 - beta2 ** (step + 1));
      for (const [name, g] of updates) {
        const { mean, square } = moments(state, name);
        for (let i = 0; i < g.length; i++) {
          mean[i] = beta1 * mean[i] + (1 - beta1) * g[i];
          square[i] = beta2 * square[i] + (1 - beta2) * g[i] * g[i];
          g[i] = (mean[i] * meanCorrection) / (Math.sqrt(square[i] * squareCorrection) + epsilon);
        }
      }
    },
  };
}

/** The moments of one parameter in the state of an Adam-like link. */
export function moments(state: State, name: string): { mean: FloatArray; square: FloatArray } {
  return {
    mean: (state.mean as State)[name] as FloatArray,
    square: (state.square as State)[name] as FloatArray,
  };
}
