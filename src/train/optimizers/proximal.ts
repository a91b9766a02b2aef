import type { State } from "../state.js";
import type { FloatArray } from "../values.js";
import { type AdamOptions, adam, moments } from "./adam.js";
import type { Link, Updates } from "./link.js";
import type { Schedule } from "./schedule.js";

/** sign(v)·max(|v| − t, 0): the proximal map of t|·|. */
export const softThreshold = (value: number, threshold: number): number =>
  Math.abs(value) <= threshold ? 0 : value - Math.sign(value) * threshold;

/** After the step, w ← soft(w, rate·λ): exact zeros. λ may change from step to step. */
export const shrink = (lambda: () => number, rate: Schedule, applies: (name: string) => boolean): Link => ({
  init: () => ({}),
  settle(weights, _state, step) {
    const threshold = rate(step) * lambda();
    shrinkEach(weights, applies, () => threshold);
  },
});

/**
 * Adam, then w ← soft(w, rate·λ / (√v̂ + ε)): the proximal map in Adam's own metric, so that a fixed point meets the
 * optimality conditions of L + λ‖w‖₁. Scale by the learning rate is included.
 */
export function proximalAdam(
  options: AdamOptions & { rate: Schedule },
  lambda: () => number,
  applies: (name: string) => boolean,
): Link {
  const { beta2 = 0.999, epsilon = 1e-8, rate } = options;
  const inner = adam(options);
  return {
    init: inner.init,
    update(updates, state, weights, step) {
      inner.update!(updates, state, weights, step);
      const factor = -rate(step);
      for (const values of updates.values()) for (let i = 0; i < values.length; i++) values[i] *= factor;
    },
    settle(weights, state, step) {
      const scale = rate(step) * lambda();
      const correction = 1 / (1 - beta2 ** (step + 1));
      shrinkEach(weights, applies, (name, i) => {
        const { square } = moments(state, name);
        return scale / (Math.sqrt(square[i] * correction) + epsilon);
      });
    },
  };
}

function shrinkEach(
  weights: Updates,
  applies: (name: string) => boolean,
  threshold: (name: string, i: number) => number,
): void {
  for (const [name, values] of weights) {
    if (applies(name)) for (let i = 0; i < values.length; i++) values[i] = softThreshold(values[i], threshold(name, i));
  }
}

/** Adds λ·sign(w) to the gradient: never exactly 0, and the step no longer depends on λ once it dominates. */
export const addSign = (lambda: () => number, applies: (name: string) => boolean): Link => ({
  init: () => ({}),
  update(updates: Updates, _state: State, weights: ReadonlyMap<string, FloatArray>) {
    for (const [name, g] of updates) {
      if (!applies(name)) continue;
      const w = weights.get(name)!;
      for (let i = 0; i < g.length; i++) g[i] += lambda() * Math.sign(w[i]);
    }
  },
});
