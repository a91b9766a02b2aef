import * as z from "zod/mini";
import { adamW } from "../optimizers/adamW.js";
import { chain } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { selectUnits } from "../selection/groups.js";
import { applyMasks, densityOf, fullMasks } from "../selection/masks.js";
import { densityFor, structureOption, unitsOf } from "../selection/patterns.js";
import { stateOf } from "../state.js";
import type { TrainMethod } from "./contract.js";

const share = z.number().check(z.gte(0), z.lte(1));
const options = z.strictObject({
  structure: structureOption,
  initial: z._default(share, 0).check(z.describe("sparsity at the first pruning")),
  final: z.optional(share).check(z.describe("sparsity from the last pruning on: 0.9, or that of keep:group")),
  from: z._default(share, 0).check(z.describe("share of the steps at which pruning begins")),
  until: z._default(share, 0.7).check(z.describe("share of the steps at which it ends")),
  interval: z._default(z.int().check(z.gte(1)), 100).check(z.describe("steps between two prunings")),
  schedule: z
    ._default(z.enum(["cubic", "linear"]), "cubic")
    .check(z.describe("cubic: most goes at first; linear: as much each time")),
});

/** Sparsity at a share of the way: steep at first, flat at the end (Zhu, Gupta 2017). */
export function cubicSparsity(initial: number, final: number, way: number): number {
  const left = 1 - Math.min(1, Math.max(0, way));
  return final + (initial - final) * left ** 3;
}

const schedules = {
  cubic: cubicSparsity,
  linear: (initial: number, final: number, way: number) => initial + (final - initial) * Math.min(1, Math.max(0, way)),
};

/**
 * Gradual magnitude pruning: each tensor loses its smallest surviving weights on a cubic schedule; none come back. With blocks,
 * rows, columns, neurons or heads for weights it loses those; N:M is reached through M − 1 of M, M − 2 of M ….
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "gradual",
  title: "Gradual magnitude pruning",
  paper: "Zhu, Gupta 2017, arXiv:1710.01878",
  options,
  start({ parameters, weights, optimizer, steps }, { structure, initial, final, from, until, interval, schedule }) {
    const sets = unitsOf(parameters, structure);
    const last = 1 - densityFor(structure, final === undefined ? undefined : 1 - final, 0.1);
    const masks = fullMasks(parameters, weights);
    const begin = Math.round(from * steps);
    const end = Math.max(begin, Math.round(until * steps));
    return {
      link: chain(keepMasks(masks), adamW(optimizer), keepMasks(masks)),
      state: { masks: stateOf(masks) },
      masks,
      refresh(current, step) {
        if (step < begin || step > end || ((step - begin) % interval !== 0 && step !== end)) return;
        const sparsity = schedules[schedule](initial, last, end === begin ? 1 : (step - begin) / (end - begin));
        for (const mask of masks.values()) mask.fill(1);
        for (const units of sets) {
          // Pruned units are zero, so the largest are taken from the survivors.
          selectUnits(units, current, units.pool - Math.round(sparsity * units.pool), masks);
        }
        applyMasks(current, masks);
      },
      metrics: () => ({ density: densityOf(masks) }),
    };
  },
};
