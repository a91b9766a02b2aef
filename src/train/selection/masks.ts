import { z } from "zod";
import { type Pattern, patternSchema, selectMask } from "../../compress/index.js";
import type { Masks } from "../optimizers/links.js";
import { type FloatArray, isSparsifiable, type ParameterInfo } from "../values.js";
import { keepLargestOfGroups } from "./groups.js";

export type MutableMasks = Map<string, Uint8Array>;

/** The option of every method that works with masks. */
export const patternOption = z
  .union([z.literal("2:4"), patternSchema])
  .transform((pattern): Pattern => (pattern === "2:4" ? { type: "nm", keep: 2, group: 4 } : pattern))
  .default({ type: "nm", keep: 2, group: 4 })
  .describe('which zeros: "2:4" or another keep:group, a share of zeros (0.5), or a pattern object');

/** Masks of all ones for the linear weights that a method may make sparse. */
export function fullMasks(
  parameters: readonly ParameterInfo[],
  weights: ReadonlyMap<string, FloatArray>,
): MutableMasks {
  return new Map(
    parameters.filter(isSparsifiable).map(({ name }) => [name, new Uint8Array(weights.get(name)!.length).fill(1)]),
  );
}

/** Keeps the largest magnitudes that the pattern allows, in each matrix by itself. @throws UsageError for a wrong shape */
export function magnitudeMask(weight: FloatArray, shape: readonly number[], pattern: Pattern, mask: Uint8Array): void {
  if (pattern.type === "nm" && pattern.along !== "column" && shape[1] % pattern.group === 0) {
    // Done at every step, unlike the one-shot pruning that `selectMask` was made for.
    keepLargestOfGroups(weight, pattern.keep, pattern.group, mask);
  } else {
    mask.set(selectMask(Float32Array.from(weight, Math.abs), shape[0], shape[1], pattern, "tensor"));
  }
}

/** Sets masked entries to zero. */
export function applyMasks(values: ReadonlyMap<string, FloatArray>, masks: Masks): void {
  for (const [name, mask] of masks) {
    const array = values.get(name)!;
    for (let i = 0; i < mask.length; i++) if (mask[i] === 0) array[i] = 0;
  }
}

/** Entries in which two masks differ. */
export function flips(a: Uint8Array, b: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) count++;
  return count;
}

export function kept(mask: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < mask.length; i++) count += mask[i];
  return count;
}

/** Share of ones over all masks. */
export function densityOf(masks: Masks): number {
  let ones = 0;
  let all = 0;
  for (const mask of masks.values()) {
    ones += kept(mask);
    all += mask.length;
  }
  return all === 0 ? 1 : ones / all;
}
