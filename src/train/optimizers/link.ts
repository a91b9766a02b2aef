import type { State } from "../state.js";
import type { FloatArray, Values } from "../values.js";

/** Arrays that a link may change in place. */
export type Updates = ReadonlyMap<string, FloatArray>;

/**
 * One stage of an optimiser. A step runs `update` of every link in order, adds the result to the weights, then runs
 * `settle` of every link in order. A link keeps nothing itself: its state goes in and out, so that runs can be stored.
 */
export interface Link {
  init(weights: Values): State;
  /**
   * Turns what came before (first the gradient, in the end what is added to the weights) into its own, in place.
   * @param step 0 for the first
   */
  update?(updates: Updates, state: State, weights: Values, step: number): void;
  /** Changes the moved weights in place: what must hold exactly (zeros, bounds) is made here, where no rounding follows. */
  settle?(weights: Updates, state: State, step: number): void;
}

/** Links one after the other as one. */
export function chain(...links: readonly Link[]): Link {
  return {
    init: (weights) => Object.fromEntries(links.map((link, i) => [String(i), link.init(weights)])),
    update(updates, state, weights, step) {
      for (const [i, link] of links.entries()) link.update?.(updates, state[i] as State, weights, step);
    },
    settle(weights, state, step) {
      for (const [i, link] of links.entries()) link.settle?.(weights, state[i] as State, step);
    },
  };
}

/** One optimiser step: weights += updates, then settled. `gradients` become the updates. */
export function applyStep(link: Link, weights: Updates, gradients: Updates, state: State, step: number): void {
  link.update?.(gradients, state, weights, step);
  for (const [name, values] of weights) {
    const update = gradients.get(name)!;
    for (let i = 0; i < values.length; i++) values[i] += update[i];
  }
  link.settle?.(weights, state, step);
}
