import * as z from "zod/mini";
import { adamWithMaskedDecay } from "../optimizers/adamDecay.js";
import { chain } from "../optimizers/link.js";
import { clipByNorm, decayWeights, descend } from "../optimizers/links.js";
import { noPull } from "../resident.js";
import { magnitudeMasks, patternOption } from "../selection/patterns.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining, onDevice } from "./maskedTraining.js";

const options = z.strictObject({
  pattern: patternOption,
  decay: z._default(z.number().check(z.gte(0)), 1e-4).check(z.describe("λ at the end of its ramp")),
  rampUntil: z
    ._default(z.number().check(z.gt(0), z.lte(1)), 0.25)
    .check(z.describe("share of the steps over which λ rises from 0")),
  interval: z._default(z.int().check(z.gte(1)), 10).check(z.describe("steps between two choices of masks")),
});

/** Adaptive sparse trainer: straight-through training under refreshed masks, with a decay of pruned weights inside AdamW. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "ast",
  title: "AST",
  paper: "Huang, Hu, Zhu, Chen 2024, arXiv:2407.20584",
  options,
  start(context, { pattern, decay, rampUntil, interval }) {
    const { optimizer, steps } = context;
    const ramp = (step: number) => decay * Math.min(1, step / (rampUntil * steps));
    return maskedTraining(context, {
      interval,
      choose: magnitudeMasks(context.parameters, pattern),
      link: (masks) =>
        chain(
          clipByNorm(optimizer.clip ?? Number.POSITIVE_INFINITY),
          adamWithMaskedDecay(optimizer, masks, (mean, weight, step) => mean + ramp(step) * weight),
          decayWeights(optimizer.weightDecay ?? 0, optimizer.decays ?? (() => true)),
          descend(optimizer.rate),
        ),
      device: onDevice(pattern, {
        forward: "masked",
        decays: true,
        pull: (step) => ({ ...noPull, weight: ramp(step) }),
        squares: "means",
      }),
    });
  },
};
