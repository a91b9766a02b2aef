import * as z from "zod";
import { transposableMask } from "../selection/transposable.js";
import { isSparsifiable } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining } from "./maskedTraining.js";
import { decayPruned } from "./srSte.js";

const options = z.strictObject({
  decay: z.number().min(0).default(6e-5).describe("λ of the pull of pruned weights towards 0"),
  interval: z.int().min(1).default(40).describe("steps between two choices of masks"),
  denseFrom: z
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe("share of the steps after which training goes on dense; the published recipe has 5/6"),
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
