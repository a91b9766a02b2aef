import { addScaledUnits, scaleUnits, type Units, unitNorms, unitSizes } from "../selection/groups.js";
import type { Link } from "./link.js";
import type { Schedule } from "./schedule.js";

/**
 * After the step, every unit is shortened by rate·λ·√n, n its number of entries, and is exactly 0 when it is no longer than
 * that: the proximal map of λ·Σ √n·‖u‖ (Yuan, Lin 2006). Sets of units are taken one after the other, also where they overlap.
 */
export const shrinkUnits = (lambda: () => number, rate: Schedule, sets: readonly Units[]): Link => {
  const roots = sets.map(rootSizes);
  return {
    init: () => ({}),
    settle(weights, _state, step) {
      for (const [s, units] of sets.entries()) {
        const factors = unitNorms(units, weights).map((norm, u) =>
          norm === 0 ? 0 : Math.max(0, 1 - (rate(step) * lambda() * roots[s][u]) / Math.abs(norm)),
        );
        scaleUnits(units, factors, weights, weights);
      }
    },
  };
};

/** Adds λ·√n·u/‖u‖ to the gradient of every unit, 0 where u is 0: never exactly 0 afterwards. */
export const addDirection = (lambda: () => number, sets: readonly Units[]): Link => {
  const roots = sets.map(rootSizes);
  return {
    init: () => ({}),
    update(updates, _state, weights) {
      for (const [s, units] of sets.entries()) {
        const factors = unitNorms(units, weights).map((norm, u) =>
          norm === 0 ? 0 : (lambda() * roots[s][u]) / Math.abs(norm),
        );
        addScaledUnits(units, factors, weights, updates);
      }
    },
  };
};

const rootSizes = (units: Units): Float64Array => Float64Array.from(unitSizes(units), Math.sqrt);
