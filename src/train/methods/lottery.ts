import type { Random } from "../../core/index.js";
import { permutation } from "../seeds.js";
import { kept, type MutableMasks } from "../selection/masks.js";
import { topS } from "../selection/topS.js";
import type { ParameterInfo, Values } from "../values.js";

/**
 * Iterative magnitude pruning with rewinding (Frankle, Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1903.01611):
 * train, prune a share of the surviving weights, put the rest back to where they were early on, train again. A round of
 * training is `fixed-mask`; what stands between two rounds is here.
 */

/** Drops the share of smallest survivors of each matrix; half the share of the last, whose few weights all matter. */
export function pruneSurvivors(
  masks: MutableMasks,
  trained: Values,
  parameters: readonly ParameterInfo[],
  share: number,
): void {
  const last = parameters.filter(({ name }) => masks.has(name)).at(-1)?.name;
  for (const [name, mask] of masks) {
    const survivors = kept(mask);
    const keep = survivors - Math.round((name === last ? share / 2 : share) * survivors);
    // Pruned weights are zero in `trained`, so they come after every survivor that is not.
    const [next] = topS([trained.get(name) as Float32Array], keep);
    for (let i = 0; i < mask.length; i++) mask[i] &= next[i];
  }
}

/** A mask with as many ones in each matrix, anywhere: the control that shows what the positions are worth. */
export function randomMasks(masks: MutableMasks, random: Random): MutableMasks {
  return new Map(
    Array.from(masks, ([name, mask]) => {
      const shuffled = new Uint8Array(mask.length);
      for (const i of permutation(random, mask.length).subarray(0, kept(mask))) shuffled[i] = 1;
      return [name, shuffled];
    }),
  );
}
