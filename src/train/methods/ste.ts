import * as z from "zod/mini";
import { noPull } from "../resident.js";
import { magnitudeMasks, patternOption } from "../selection/patterns.js";
import type { FloatArray } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining, onDevice } from "./maskedTraining.js";

type GradientRule = (g: FloatArray, weight: FloatArray, mask: Uint8Array) => void;

/** Gradient of the dense weight from g = dL/d(W ∘ M). */
const rules = {
  /** Reaches pruned weights as if the mask were not there. */
  dense: () => {},
  /** What differentiating W ∘ M with a constant M gives: pruned weights never move. */
  autograd(g, _weight, mask) {
    for (let i = 0; i < g.length; i++) if (mask[i] === 0) g[i] = 0;
  },
  /** Differentiates M(W) as well, with M′ taken as 1: g ∘ (M + W). */
  maskDerivative(g, weight, mask) {
    for (let i = 0; i < g.length; i++) g[i] *= mask[i] + weight[i];
  },
} satisfies Record<string, GradientRule>;

const options = z.strictObject({
  pattern: patternOption,
  rule: z
    ._default(z.enum(Object.keys(rules) as (keyof typeof rules)[]), "dense")
    .check(z.describe("gradient of pruned weights: dense (as if kept), autograd (none), maskDerivative (g ∘ (M + W))")),
  interval: z._default(z.int().check(z.gte(1)), 1).check(z.describe("steps between two choices of masks")),
});

/** Training under a mask of the largest weights, chosen anew from the dense ones, with a straight-through gradient. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "ste",
  title: "Straight-through estimator",
  paper: "Bengio, Léonard, Courville 2013, arXiv:1308.3432",
  options,
  start: (context, { pattern, rule, interval }) =>
    maskedTraining(context, {
      interval,
      choose: magnitudeMasks(context.parameters, pattern),
      gradient: rules[rule],
      ...(rule === "dense" && {
        device: onDevice(pattern, { forward: "masked", decays: true, pull: () => noPull, squares: "gradients" }),
      }),
    }),
};
