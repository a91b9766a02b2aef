import type { Masks } from "../optimizers/links.js";
import { type FloatArray, isSparsifiable, type ParameterInfo } from "../values.js";

export type MutableMasks = Map<string, Uint8Array>;

/** Masks of all ones for the linear weights that a method may make sparse. */
export function fullMasks(
  parameters: readonly ParameterInfo[],
  weights: ReadonlyMap<string, FloatArray>,
): MutableMasks {
  return new Map(
    parameters.filter(isSparsifiable).map(({ name }) => [name, new Uint8Array(weights.get(name)!.length).fill(1)]),
  );
}

/** Fills the masks with 1 where a weight is not 0. */
export function markNonZeros(weights: ReadonlyMap<string, FloatArray>, masks: Masks): void {
  for (const [name, mask] of masks) {
    const weight = weights.get(name)!;
    for (let i = 0; i < mask.length; i++) mask[i] = weight[i] === 0 ? 0 : 1;
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
