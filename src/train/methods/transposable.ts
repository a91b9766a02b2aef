import * as z from "zod/mini";
import { transposableMask } from "../selection/transposable.js";
import { isSparsifiable } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining } from "./maskedTraining.js";
import { decayPruned } from "./srSte.js";

const options = z.strictObject({
  decay: z._default(z.number().check(z.gte(0)), 6e-5).check(z.describe("λ of the pull of pruned weights towards 0")),
  interval: z._default(z.int().check(z.gte(1)), 40).check(z.describe("steps between two choices of masks")),
  denseFrom: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 1)
    .check(z.describe("share of the steps after which training goes on dense; the published recipe has 5/6")),
});

/**
 * 2:4 masks that are 2:4 along rows and columns at once, refreshed now and then, with masked decay in the gradient. Without
 * the unbiased pruning of output gradients, which saves time on hardware and changes no expectation.
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "transposable",
  title: "Transposable 2:4",
  paper: "Hu et al. 2024, arXiv:2404.01847",
  options,
  start(context, { decay, interval, denseFrom }) {
    const denseStep = denseFrom * context.steps;
    const matrices = context.parameters.filter(isSparsifiable);
    const pull = decayPruned(decay);
    const run = maskedTraining(context, {
      interval,
      choose(weights, masks) {
        for (const { name, shape } of matrices) transposableMask(weights.get(name)!, shape, masks.get(name)!);
      },
      gradient: pull,
    });
    return {
      ...run,
      refresh(weights, step) {
        if (step < denseStep) return run.refresh!(weights, step);
        for (const mask of run.masks!.values()) mask.fill(1);
      },
    };
  },
};
