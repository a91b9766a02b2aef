import { UsageError } from "../core/index.js";
import { zerosFor } from "./pattern.js";
import { rank } from "./select.js";

/** Scores that can be had again, so that not all of them are in memory together. */
export interface ScoredTensor {
  name: string;
  length: number;
  /** f32 [length], finite and ≥ 0; the same on every call. */
  scores(): Promise<Float32Array>;
}

const topBits = 16;
const buckets = 2 ** topBits;

/**
 * One threshold for all tensors: how many entries each loses when ⌊Σ length · sparsity⌋ of all go, lowest scores first,
 * ties in the order of the tensors. Prune each tensor at its own count to get the mask. Scores are read twice.
 * @param largestSparsity no tensor loses more than this share; what it is spared the others bear
 * @returns zeros per tensor
 */
export async function shareGlobally(
  tensors: readonly ScoredTensor[],
  sparsity: number,
  largestSparsity = 0.95,
): Promise<number[]> {
  if (sparsity > largestSparsity) {
    throw new UsageError(`sparsity ${sparsity} is more than the ${largestSparsity} that one tensor may have`);
  }
  // First digit of a radix selection, per tensor: scores order like their bits.
  const histograms: Uint32Array[] = [];
  for (const tensor of tensors) {
    const counts = new Uint32Array(buckets);
    for (const bits of bitsOf(await tensor.scores())) counts[bits >>> topBits]++;
    histograms.push(counts);
  }

  const zeros = tensors.map(() => 0);
  const limits = tensors.map((tensor) => zerosFor(tensor.length, largestSparsity));
  const free = new Set(tensors.keys());
  let budget = zerosFor(
    tensors.reduce((sum, tensor) => sum + tensor.length, 0),
    sparsity,
  );
  for (;;) {
    const shares = await shareAmong(tensors, histograms, [...free], budget);
    const over = [...shares].filter(([tensor, count]) => count > limits[tensor]);
    for (const [tensor, count] of over.length > 0 ? over : shares) {
      zeros[tensor] = Math.min(count, limits[tensor]);
      budget -= zeros[tensor];
      free.delete(tensor);
    }
    if (over.length === 0) return zeros;
  }
}

const bitsOf = (scores: Float32Array) => new Uint32Array(scores.buffer, scores.byteOffset, scores.length);

/** How many of the `budget` lowest scores of the tensors named fall to each. */
async function shareAmong(
  tensors: readonly ScoredTensor[],
  histograms: readonly Uint32Array[],
  names: readonly number[],
  budget: number,
): Promise<Map<number, number>> {
  const shares = new Map(names.map((t) => [t, 0]));
  if (budget === 0) return shares;
  let bucket = 0;
  let below = 0;
  for (; ; bucket++) {
    const inBucket = names.reduce((sum, t) => sum + histograms[t][bucket], 0);
    if (below + inBucket >= budget) break;
    for (const t of names) shares.set(t, shares.get(t)! + histograms[t][bucket]);
    below += inBucket;
  }
  // Within the bucket that holds the threshold, the scores themselves.
  const inside: Float32Array[] = [];
  for (const t of names) {
    const all = histograms[t][bucket] === 0 ? new Float32Array() : await tensors[t].scores();
    const bits = bitsOf(all);
    inside.push(all.filter((_, i) => bits[i] >>> topBits === bucket));
  }
  const pool = new Float32Array(inside.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of inside) {
    pool.set(part, at);
    at += part.length;
  }
  const threshold = rank(pool, 0, pool.length, budget - below - 1);
  let ties = budget - below - threshold.below;
  names.forEach((t, n) => {
    for (const score of inside[n]) {
      if (score < threshold.value || (score === threshold.value && ties-- > 0)) shares.set(t, shares.get(t)! + 1);
    }
  });
  return shares;
}
