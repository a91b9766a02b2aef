import { type Factors, factorParameters } from "../../tensor/index.js";
import { productOfModes } from "../../tensor/internal.js";
import type { Shape } from "../contract.js";
import type { Modes } from "./fit.js";

/** Ranks come in fours, as the products do that they are part of. */
export const rankStep = 4;

/** Ranks of a train of which none is above `cap`, nor above what its unfolding can have. */
export function trainRanks({ rowModes, colModes }: Modes, cap: number): number[] {
  const sizes = rowModes.map((mode, k) => mode * colModes[k]);
  return sizes
    .slice(0, -1)
    .map((_, k) => Math.min(cap, productOfModes(sizes.slice(0, k + 1)), productOfModes(sizes.slice(k + 1))));
}

/** Ranks of Tucker's factors of which none is above `cap` or its mode. */
export const modeRanks = (modes: readonly number[], cap: number): number[] => modes.map((mode) => Math.min(mode, cap));

/** Of Tucker's ranks, one step at a time the one that is smallest beside its mode, as long as there is budget left. */
export function modeRanksForBudget(
  made: (ranks: readonly number[]) => Factors,
  modes: readonly number[],
  shape: Shape,
  budget: number,
): number[] {
  let ranks = modeRanks(modes, rankStep);
  for (;;) {
    const grown = [...modes.keys()]
      .filter((axis) => ranks[axis] < modes[axis])
      .sort((a, b) => ranks[a] / modes[a] - ranks[b] / modes[b])
      .map((axis) => ranks.with(axis, Math.min(modes[axis], ranks[axis] + rankStep)))
      .find((next) => factorParameters(made(next), shape) <= budget);
    if (grown === undefined) return ranks;
    ranks = grown;
  }
}

/**
 * The largest multiple of `rankStep`, at least one, whose factors hold no more than `budget` numbers.
 * @param made factors of at most that rank
 */
export function capForBudget(made: (cap: number) => Factors, shape: Shape, budget: number): number {
  let [low, high] = [rankStep, rankStep * Math.ceil(Math.max(shape.rows, shape.cols) / rankStep)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2 / rankStep) * rankStep;
    if (factorParameters(made(middle), shape) <= budget) low = middle;
    else high = middle - rankStep;
  }
  return low;
}
