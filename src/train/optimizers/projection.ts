import { selectUnits, type Units } from "../selection/groups.js";
import { applyMasks, markNonZeros } from "../selection/masks.js";
import type { FloatArray } from "../values.js";
import type { Link } from "./link.js";

/** Units that share one budget, and how many of each pool may be other than zero. */
export interface Budget {
  units: Units;
  keep: number;
}

/** All but the units of largest norm of each budget become 0. @param masks filled with what is not 0 afterwards */
export function project(
  budgets: readonly Budget[],
  weights: ReadonlyMap<string, FloatArray>,
  masks: Map<string, Uint8Array>,
): void {
  for (const mask of masks.values()) mask.fill(1);
  for (const { units, keep } of budgets) selectUnits(units, weights, keep, masks);
  applyMasks(weights, masks);
  markNonZeros(weights, masks);
}

/** After the step, the projection onto sparse vectors. @param due whether to project after this step */
export const projectSparse = (
  budgets: readonly Budget[],
  masks: Map<string, Uint8Array>,
  due: (step: number) => boolean,
): Link => ({
  init: () => ({}),
  settle(weights, _state, step) {
    if (due(step)) project(budgets, weights, masks);
  },
});
