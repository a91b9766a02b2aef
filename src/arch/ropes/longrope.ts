import * as z from "zod/mini";
import { factor, positions, type Rope } from "./rope.js";

export interface LongRope {
  type: "longrope";
  /** How much longer contexts may be than the original. */
  factor: number;
  /** A divisor of every pair's frequency, for contexts up to `originalMaxPositions` and for longer ones. */
  shortFactors: readonly number[];
  longFactors: readonly number[];
  originalMaxPositions: number;
  attentionFactor: number;
}

const factors = z.array(factor).check(z.minLength(1), z.maxLength(2048));

const fields = z.object({
  short_factor: factors,
  long_factor: factors,
  factor: z.nullish(factor),
  original_max_position_embeddings: positions,
  max_position_embeddings: positions,
  attention_factor: z.nullish(factor),
});

/**
 * A divisor of its own for every pair, found by search (LongRoPE, arXiv 2402.13753). Which of the two lists counts is decided
 * by how long the context may become, once for a whole sequence: keys that were rotated by one list do not fit the other.
 */
export const rope: Rope<LongRope> = {
  schema: z.pipe(
    fields,
    z.transform((f) => {
      const originalMaxPositions = f.original_max_position_embeddings;
      const factor = f.factor ?? f.max_position_embeddings / originalMaxPositions;
      return {
        type: "longrope" as const,
        factor,
        shortFactors: f.short_factor,
        longFactors: f.long_factor,
        originalMaxPositions,
        attentionFactor:
          f.attention_factor ?? (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions))),
      };
    }),
  ),
  reach: ({ originalMaxPositions }, length) => originalMaxPositions + (length > originalMaxPositions ? 1 : 0),
  scaled({ shortFactors, longFactors, originalMaxPositions }, plain, reach) {
    const divisors = reach > originalMaxPositions ? longFactors : shortFactors;
    return plain.map((frequency, i) => frequency / divisors[i]);
  },
  attentionFactor: ({ attentionFactor }) => attentionFactor,
  listed: ({ shortFactors, longFactors }) => ({ short_factor: shortFactors.length, long_factor: longFactors.length }),
};
