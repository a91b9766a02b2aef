import { z } from "zod";
import type { FloatArray } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining } from "./maskedTraining.js";

const options = z.strictObject({});

/**
 * S(w) = sign(w)·max(|w| − t, 0) with t the second-smallest magnitude of each group of four along a row: at most two
 * non-zeros, and no jump when the order of two weights changes.
 */
export function softTwoOfFour(weight: FloatArray, out: FloatArray): void {
  for (let i = 0; i < weight.length; i += 4) {
    const a = Math.abs(weight[i]);
    const b = Math.abs(weight[i + 1]);
    const c = Math.abs(weight[i + 2]);
    const d = Math.abs(weight[i + 3]);
    const threshold = Math.min(Math.max(Math.min(a, b), Math.min(c, d)), Math.min(Math.max(a, b), Math.max(c, d)));
    for (let k = i; k < i + 4; k++) out[k] = Math.sign(weight[k]) * Math.max(Math.abs(weight[k]) - threshold, 0);
  }
}

/** β = ⟨W, S(W)⟩ / ⟨S(W), S(W)⟩, which brings β·S(W) nearest to W. 1 where S(W) is all zero. */
export function nearestScale(weight: FloatArray, soft: FloatArray): number {
  let cross = 0;
  let square = 0;
  for (let i = 0; i < weight.length; i++) {
    cross += weight[i] * soft[i];
    square += soft[i] * soft[i];
  }
  return square === 0 ? 1 : cross / square;
}

/** Continuous 2:4: the forward pass uses β·S(W), β fixed at the start; the gradient passes unchanged. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "s-ste",
  title: "S-STE",
  paper: "Hu et al. 2024, arXiv:2409.09099",
  options,
  start(context) {
    const scales: Record<string, number> = {};
    const run = maskedTraining(context, {
      interval: 1,
      choose(weight, _info, mask) {
        const soft = weight.slice();
        softTwoOfFour(weight, soft);
        for (let i = 0; i < mask.length; i++) mask[i] = soft[i] === 0 ? 0 : 1;
      },
      forward(weight, _mask, out, name) {
        softTwoOfFour(weight, out);
        const scale = scales[name];
        for (let i = 0; i < out.length; i++) out[i] *= scale;
      },
    });
    for (const name of run.masks!.keys()) {
      const weight = context.weights.get(name)!;
      const soft = weight.slice();
      softTwoOfFour(weight, soft);
      scales[name] = nearestScale(weight, soft);
    }
    run.state.scales = scales;
    return run;
  },
};
