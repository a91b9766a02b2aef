import { findThreshold } from "../../tensor/internal.js";
import type { Masks } from "../optimizers/links.js";

/** Counts, for every weight, after how many steps it was not zero. */
export function retentionCounter(masks: Masks) {
  const counts = new Map(Array.from(masks, ([name, mask]) => [name, new Int32Array(mask.length)]));
  return {
    counts: counts as ReadonlyMap<string, Int32Array>,
    count(current: Masks): void {
      for (const [name, totals] of counts) {
        const mask = current.get(name)!;
        for (let i = 0; i < mask.length; i++) totals[i] += mask[i];
      }
    },
  };
}

/**
 * Share of the final support that the most often kept positions predict: |top_s(counts) ∩ support| / s. Ties in the counts
 * go to the support, since they do not tell positions apart.
 */
export function supportOverlap(counts: Int32Array, mask: Uint8Array): number {
  const size = mask.reduce((sum, keep) => sum + keep, 0);
  if (size === 0) return 1;
  // Counts as f32 keep their order: exact below 2²⁴.
  const values = Float32Array.from(counts);
  const { bits, ties } = findThreshold([values], size);
  const threshold = new Float32Array(Uint32Array.of(bits).buffer)[0];
  let above = 0;
  let tied = 0;
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    if (values[i] > threshold) above++;
    else if (values[i] === threshold) tied++;
  }
  return (above + Math.min(tied, ties)) / size;
}

/** The overlap of all masks, each weighted by its support. */
export function meanOverlap(counts: ReadonlyMap<string, Int32Array>, masks: Masks): number {
  let kept = 0;
  let predicted = 0;
  for (const [name, mask] of masks) {
    const size = mask.reduce((sum, keep) => sum + keep, 0);
    kept += size;
    predicted += size * supportOverlap(counts.get(name)!, mask);
  }
  return kept === 0 ? 1 : predicted / kept;
}
