import * as z from "zod/mini";
import { noPull } from "../resident.js";
import { magnitudeMasks, patternOption } from "../selection/patterns.js";
import type { FloatArray } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining, onDevice } from "./maskedTraining.js";

const options = z.strictObject({
  pattern: patternOption,
  decay: z._default(z.number().check(z.gte(0)), 2e-4).check(z.describe("λ of the pull of pruned weights towards 0")),
  interval: z._default(z.int().check(z.gte(1)), 1).check(z.describe("steps between two choices of masks")),
});

/** g += λ(1 − M) ∘ W: the gradient of (λ/2)‖(1 − M) ∘ W‖², which keeps pruned weights from coming back by noise. */
export const decayPruned =
  (decay: number) =>
  (g: FloatArray, weight: FloatArray, mask: Uint8Array): void => {
    for (let i = 0; i < g.length; i++) if (mask[i] === 0) g[i] += decay * weight[i];
  };

/** Sparse-refined straight-through estimator. The decay enters the gradient, so Adam's moments see it. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "sr-ste",
  title: "SR-STE",
  paper: "Zhou et al. 2021, arXiv:2102.04010",
  options,
  start: (context, { pattern, decay, interval }) =>
    maskedTraining(context, {
      interval,
      choose: magnitudeMasks(context.parameters, pattern),
      gradient: decayPruned(decay),
      device: onDevice(pattern, {
        forward: "masked",
        decays: true,
        pull: () => ({ ...noPull, gradient: decay }),
        squares: "gradients",
      }),
    }),
};
