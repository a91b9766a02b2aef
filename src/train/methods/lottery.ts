import type { Pattern } from "../../compress/index.js";
import { type Random, UsageError } from "../../core/index.js";
import { permutation } from "../seeds.js";
import { dropUnits, keepLargestUnits, unitNorms, unitsPresent } from "../selection/groups.js";
import { kept, type MutableMasks } from "../selection/masks.js";
import { unitsOf } from "../selection/patterns.js";
import type { ParameterInfo, Values } from "../values.js";

/**
 * Iterative magnitude pruning with rewinding (Frankle, Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1903.01611):
 * train, prune a share of the surviving weights, put the rest back to where they were early on, train again. A round of
 * training is `fixed-mask`; what stands between two rounds is here.
 */

/**
 * Drops the share of smallest survivors of each matrix; half the share of the last, whose few weights all matter.
 * @param structure what is dropped: weights, blocks, rows, columns, neurons or heads
 * @throws UsageError for N:M, of which no share can be dropped
 */
export function pruneSurvivors(
  masks: MutableMasks,
  trained: Values,
  parameters: readonly ParameterInfo[],
  share: number,
  structure: Pattern = { type: "unstructured", sparsity: 0 },
): void {
  if (structure.type === "nm") throw new UsageError("the density of keep:group is fixed; lottery tickets change it");
  const sparse = parameters.filter(({ name }) => masks.has(name));
  const last = sparse.at(-1)?.name;
  for (const units of unitsOf(sparse, structure)) {
    const present = unitsPresent(units, masks);
    const isLast = units.members.length === 1 && units.members[0].name === last;
    const survivors = kept(present);
    const keep = survivors - Math.round((isLast ? share / 2 : share) * survivors);
    // Pruned units are zero in `trained`, so they come after every survivor that is not.
    const next = new Uint8Array(units.count);
    keepLargestUnits(unitNorms(units, trained), units.count, keep, next);
    for (let i = 0; i < next.length; i++) next[i] &= present[i];
    dropUnits(units, next, masks);
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
