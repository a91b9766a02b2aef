import { Sampler, type SamplingOptions } from "../samplers.js";

/** Tokens that a law keeps at most. */
export const mostOfLaw = 64;

/**
 * Draws as a sampler does, from the largest probabilities alone, so that few numbers say what was drawn from. What a target then
 * accepts follows the target's law all the same.
 */
export class CutSampler extends Sampler {
  /** @param vocabSize of the target: it could not verify what it has no token for */
  constructor(
    options: SamplingOptions,
    readonly vocabSize: number,
  ) {
    super(options);
  }

  override law(logits: Float32Array, occurred: Iterable<number>): Float64Array {
    const law = super.law(logits.subarray(0, this.vocabSize), occurred);
    const ids = largestOf(law, mostOfLaw);
    const total = ids.reduce((sum, id) => sum + law[id], 0);
    const cut = new Float64Array(law.length);
    for (const id of ids) cut[id] = law[id] / total;
    return cut;
  }
}

/** Ids of the largest probabilities above 0, by their ids. */
function largestOf(law: Float64Array, most: number): number[] {
  const ids = [...law.keys()].filter((id) => law[id] > 0);
  if (ids.length <= most) return ids;
  return ids
    .sort((a, b) => law[b] - law[a] || a - b)
    .slice(0, most)
    .sort((a, b) => a - b);
}

/** A law as pairs of id and probability; zeros are left out. */
export function pairsOf(law: Float64Array): [number, number][] {
  const pairs: [number, number][] = [];
  for (const [id, share] of law.entries()) if (share > 0) pairs.push([id, share]);
  return pairs;
}
