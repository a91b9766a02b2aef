import * as z from "zod/mini";
import { adamWithMaskedDecay } from "../optimizers/adamDecay.js";
import { chain } from "../optimizers/link.js";
import { clipByNorm, descend } from "../optimizers/links.js";
import { noPull } from "../resident.js";
import { applyMasks } from "../selection/masks.js";
import { magnitudeMasks, patternOption } from "../selection/patterns.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining, onDevice } from "./maskedTraining.js";

const options = z.strictObject({
  pattern: patternOption,
  decay: z._default(z.number().check(z.gte(0)), 4e-7).check(z.describe("λ of the L1 pull on pruned weights")),
  interval: z._default(z.int().check(z.gte(1)), 10).check(z.describe("steps between two choices of masks")),
  scales: z
    ._default(z.int().check(z.gte(0)), 2)
    .check(z.describe("trainable scales per row, each for as many columns; 0 for none")),
});

const scaleName = (name: string) => `${name}:scale`;

/** Multiplies each of the `blocks` column blocks of every row by its scale. */
function scaled(weight: FloatArray, [rows, cols]: readonly number[], scales: FloatArray, out: FloatArray): void {
  const blocks = scales.length / rows;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++)
      out[r * cols + c] = weight[r * cols + c] * scales[r * blocks + blockOf(c, cols, blocks)];
  }
}

const blockOf = (col: number, cols: number, blocks: number) => Math.floor((col * blocks) / cols);

/**
 * Continuous adaptive sparse training: the forward pass stays dense, pruned weights are pulled to 0 by an L1 that ramps from
 * nothing to all of the step (AdamS), and trainable scales per row make up for the shrinking. The last mask prunes what is
 * left. The published method also distils from the dense model: that is the objective's matter (`models/distillation.ts`).
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "cast",
  title: "CAST",
  paper: "Huang et al. 2025, arXiv:2509.25996",
  options,
  start(context, { pattern, decay, interval, scales }) {
    const { parameters, weights, optimizer, steps } = context;
    const run = maskedTraining(context, {
      interval,
      choose: magnitudeMasks(parameters, pattern),
      link: (masks) =>
        chain(
          clipByNorm(optimizer.clip ?? Number.POSITIVE_INFINITY),
          adamWithMaskedDecay(optimizer, masks, (mean, weight, step) => {
            const share = step / steps;
            return (1 - share) * mean + share * decay * Math.sign(weight);
          }),
          descend(optimizer.rate),
        ),
      device: onDevice(pattern, {
        forward: scales === 0 ? "weights" : { scales, nameOf: scaleName },
        decays: false,
        pull: (step) => ({ ...noPull, mean: 1 - step / steps, sign: (decay * step) / steps }),
        squares: "means",
      }),
    });
    const masks = run.masks!;
    const scaledInfos: ParameterInfo[] = scales === 0 ? [] : parameters.filter(({ name }) => masks.has(name));
    const seen = new Map(weights);
    for (const { name, shape } of scaledInfos) {
      weights.set(scaleName(name), new Float32Array(shape[0] * scales).fill(1));
      seen.set(name, weights.get(name)!.slice());
    }
    const effective = (current: Values): Values => {
      for (const { name, shape } of scaledInfos) {
        scaled(current.get(name)!, shape, current.get(scaleName(name))!, seen.get(name)!);
      }
      return seen;
    };
    return {
      ...run,
      effective,
      gradient(gradients, current) {
        for (const { name, shape } of scaledInfos) {
          const g = gradients.get(name)!;
          const weight = current.get(name)!;
          const scale = current.get(scaleName(name))!;
          const ofScale = new Float32Array(scale.length);
          const cols = shape[1];
          for (let i = 0; i < g.length; i++) {
            const at = Math.floor(i / cols) * scales + blockOf(i % cols, cols, scales);
            ofScale[at] += g[i] * weight[i];
            g[i] *= scale[at];
          }
          gradients.set(scaleName(name), ofScale);
        }
      },
      finish(current) {
        for (const { name, shape } of scaledInfos) {
          const weight = current.get(name)!;
          scaled(weight, shape, current.get(scaleName(name))!, weight);
          current.delete(scaleName(name));
        }
        applyMasks(current, masks);
      },
    };
  },
};
