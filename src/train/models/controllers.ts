import { findStep, type ModelSpec } from "../../arch/index.js";
import type { Batch, BatchControl } from "../objective.js";
import { randomFor } from "../seeds.js";

/** Names, in a batch, of what controllers are given: noise f32 [layers, rows, units], and 1 where they decide hard. */
export const [noiseName, hardName] = ["controllerNoise", "controllerHard"];

/** Temperature of the noise, and the share of steps in which controllers decide hard, as in the code that was published. */
const [temperature, hardShare] = [0.1, 0.3];

/** What controllers are given in one step: Gumbel noise. @param step from 0 */
export function controllerArrays(
  { layers, units }: { layers: number; units: number },
  rows: number,
  seed: number,
  step: number,
): Batch {
  const random = randomFor(seed, "controllers", step);
  const gumbel = () => -temperature * Math.log(-Math.log(Math.min(1 - 1e-6, Math.max(1e-6, random.uniform()))));
  const values = Float32Array.from({ length: layers * rows * units }, gumbel);
  return {
    [noiseName]: { shape: [layers, rows, units], values },
    [hardName]: { shape: [1], values: Float32Array.of(random.uniform() < hardShare ? 1 : 0) },
  };
}

/**
 * Steers the controllers of a model (Terraformer, arXiv 2111.12763) through its training; undefined for a model without. Where it is
 * only measured they decide as they do when the model is run.
 * @param rows tokens of a step
 */
export function controllerControl({ blocks }: ModelSpec, rows: number, seed: number): BatchControl | undefined {
  const units = Math.max(0, ...blocks.map((block) => findStep(block, "choose")?.controller.up.rows ?? 0));
  if (units === 0) return undefined;
  const state = { step: 0 };
  return {
    state,
    arrays: () => controllerArrays({ layers: blocks.length, units }, rows, seed, state.step),
    evaluationArrays: () => ({}),
    observe() {
      state.step++;
    },
  };
}
