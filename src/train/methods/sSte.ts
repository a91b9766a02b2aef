import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { keepLargestUnits, scaleUnits, type Units, unitNorms } from "../selection/groups.js";
import { markNonZeros } from "../selection/masks.js";
import { isCoupled, keptOfPool, patternOption, unitsOf } from "../selection/patterns.js";
import type { FloatArray, Values } from "../values.js";
import type { TrainMethod } from "./contract.js";
import { maskedTraining } from "./maskedTraining.js";

const options = z.strictObject({ pattern: patternOption });

/**
 * The factor of every unit in S(W): max(‖u‖ − t, 0) / ‖u‖, with t the largest norm that its pool drops. Of weights in 2:4 that
 * is sign(w)·max(|w| − t, 0) with t the second-smallest of four: at most two non-zeros, and no jump when the order of two
 * weights changes.
 * @param keep units of each pool that may stay
 */
export function softFactors(norms: Float32Array, pool: number, keep: number): Float32Array {
  const kept = new Uint8Array(norms.length);
  keepLargestUnits(norms, pool, keep, kept);
  const factors = new Float32Array(norms.length);
  for (let start = 0; start < norms.length; start += pool) {
    let threshold = 0;
    for (let i = start; i < start + pool; i++) {
      if (kept[i] === 0) threshold = Math.max(threshold, Math.abs(norms[i]));
    }
    for (let i = start; i < start + pool; i++) {
      const norm = Math.abs(norms[i]);
      factors[i] = norm > threshold ? (norm - threshold) / norm : 0;
    }
  }
  return factors;
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

/** Continuous sparsity: the forward pass uses β·S(W), β of each matrix fixed at the start; the gradient passes unchanged. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "s-ste",
  title: "S-STE",
  paper: "Hu et al. 2024, arXiv:2409.09099",
  options,
  start(context, { pattern }) {
    if (isCoupled(pattern) || ("scope" in pattern && pattern.scope === "global")) {
      throw new UsageError("s-ste softens every matrix by itself: neither neurons, heads nor a global scope");
    }
    const sets = unitsOf(context.parameters, pattern).map((units) => ({ units, name: units.members[0].name }));
    const soften = (units: Units, weights: Values, out: ReadonlyMap<string, FloatArray>, scale: number) => {
      const factors = softFactors(unitNorms(units, weights), units.pool, keptOfPool(pattern, units.pool));
      for (let i = 0; i < factors.length; i++) factors[i] *= scale;
      scaleUnits(units, factors, weights, out);
    };
    const scales: Record<string, number> = {};
    const run = maskedTraining(context, {
      interval: 1,
      choose(weights, masks) {
        const soft = new Map(Array.from(masks.keys(), (name) => [name, weights.get(name)!.slice()]));
        for (const { units } of sets) soften(units, weights, soft, 1);
        markNonZeros(soft, masks);
      },
      forward(weights, _masks, out) {
        for (const { units, name } of sets) soften(units, weights, out, scales[name]);
      },
    });
    for (const { units, name } of sets) {
      const weight = context.weights.get(name)!;
      const soft = new Map([[name, weight.slice()]]);
      soften(units, context.weights, soft, 1);
      scales[name] = nearestScale(weight, soft.get(name)!);
    }
    run.state.scales = scales;
    return run;
  },
};
