import { z } from "zod";
import { adamW } from "../optimizers/adamW.js";
import { chain } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { applyMasks, densityOf, fullMasks } from "../selection/masks.js";
import { findThreshold, keepAbove } from "../selection/topS.js";
import { stateOf } from "../state.js";
import type { TrainMethod } from "./contract.js";

const share = z.number().min(0).max(1);
const options = z.strictObject({
  initial: share.default(0).describe("sparsity at the first pruning"),
  final: share.default(0.9).describe("sparsity from the last pruning on"),
  from: share.default(0).describe("share of the steps at which pruning begins"),
  until: share.default(0.7).describe("share of the steps at which it ends"),
  interval: z.int().min(1).default(100).describe("steps between two prunings"),
});

/** Sparsity at a share of the way: steep at first, flat at the end (Zhu, Gupta 2017). */
export function cubicSparsity(initial: number, final: number, way: number): number {
  const left = 1 - Math.min(1, Math.max(0, way));
  return final + (initial - final) * left ** 3;
}

/** Gradual magnitude pruning: each tensor loses its smallest surviving weights on a cubic schedule; none come back. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "gradual",
  title: "Gradual magnitude pruning",
  paper: "Zhu, Gupta 2017, arXiv:1710.01878",
  options,
  start({ parameters, weights, optimizer, steps }, { initial, final, from, until, interval }) {
    const masks = fullMasks(parameters, weights);
    const begin = Math.round(from * steps);
    const end = Math.max(begin, Math.round(until * steps));
    return {
      link: chain(keepMasks(masks), adamW(optimizer), keepMasks(masks)),
      state: { masks: stateOf(masks) },
      masks,
      refresh(current, step) {
        if (step < begin || step > end || ((step - begin) % interval !== 0 && step !== end)) return;
        const sparsity = cubicSparsity(initial, final, end === begin ? 1 : (step - begin) / (end - begin));
        for (const [name, mask] of masks) {
          // Pruned weights are zero, so the largest are taken from the survivors.
          const weight = [current.get(name) as Float32Array];
          keepAbove(weight, findThreshold(weight, mask.length - Math.round(sparsity * mask.length)), [mask]);
        }
        applyMasks(current, masks);
      },
      metrics: () => ({ density: densityOf(masks) }),
    };
  },
};
