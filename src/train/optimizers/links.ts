import { stateOf } from "../state.js";
import type { FloatArray } from "../values.js";
import { squaredNorm, zerosLike } from "../values.js";
import type { Link } from "./link.js";
import type { Schedule } from "./schedule.js";

const stateless = { init: () => ({}) };

/** Shortens the whole gradient to `maxNorm` when it is longer. */
export const clipByNorm = (maxNorm: number): Link => ({
  ...stateless,
  update(updates) {
    const norm = Math.sqrt(squaredNorm(updates.values()));
    if (!(norm > maxNorm)) return;
    for (const values of updates.values()) for (let i = 0; i < values.length; i++) values[i] *= maxNorm / norm;
  },
});

/** Adds decay·W to what is later scaled by the learning rate: AdamW (Loshchilov, Hutter 2019) behind Adam. */
export const decayWeights = (decay: number, applies: (name: string) => boolean): Link => ({
  ...stateless,
  update(updates, _state, weights) {
    for (const [name, values] of updates) {
      if (!applies(name)) continue;
      const w = weights.get(name)!;
      for (let i = 0; i < values.length; i++) values[i] += decay * w[i];
    }
  },
});

/** The sum of past gradients, each step `momentum` times the last. */
export const heavyBall = (momentum: number): Link => ({
  init: (weights) => ({ velocity: stateOf(zerosLike(weights)) }),
  update(updates, state) {
    for (const [name, values] of updates) {
      const velocity = (state.velocity as Record<string, FloatArray>)[name];
      for (let i = 0; i < values.length; i++) values[i] = velocity[i] = momentum * velocity[i] + values[i];
    }
  },
});

/** Times −rate(step): the direction of descent. Last of the links that update. */
export const descend = (rate: Schedule): Link => ({
  ...stateless,
  update(updates, _state, _weights, step) {
    const factor = -rate(step);
    for (const values of updates.values()) for (let i = 0; i < values.length; i++) values[i] *= factor;
  },
});

/** 0/1 masks by parameter name, 1 = keep. */
export type Masks = ReadonlyMap<string, Uint8Array>;

/** Keeps masked gradients and weights at exact zero; ahead of Adam it keeps their moments at 0 as well. */
export const keepMasks = (masks: Masks): Link => {
  const zero = (arrays: ReadonlyMap<string, FloatArray>) => {
    for (const [name, mask] of masks) {
      const values = arrays.get(name)!;
      for (let i = 0; i < mask.length; i++) if (mask[i] === 0) values[i] = 0;
    }
  };
  return { ...stateless, update: zero, settle: zero };
};
