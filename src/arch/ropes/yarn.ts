import * as z from "zod/mini";
import { factor, positions, type Rope } from "./rope.js";

export interface YarnRope {
  type: "yarn";
  factor: number;
  /** Pairs that turn more often than this over the original context stay as they are. */
  betaFast: number;
  /** Pairs that turn less often are stretched by the whole factor. */
  betaSlow: number;
  originalMaxPositions: number;
  /** Whether the ends of the range between the two are whole pairs. */
  truncate: boolean;
  attentionFactor: number;
}

const orElse = <T>(type: z.core.$ZodType<T>, fallback: T) =>
  z.pipe(
    z.nullish(type),
    z.transform((value) => value ?? fallback),
  );
// 0 counts as left out.
const scale = z.nullish(z.number().check(z.gte(0), z.lte(1e3)));

const fields = z.object({
  factor: z.nullish(factor),
  beta_fast: orElse(factor, 32),
  beta_slow: orElse(factor, 1),
  original_max_position_embeddings: positions,
  max_position_embeddings: positions,
  truncate: orElse(z.boolean(), true),
  attention_factor: z.nullish(factor),
  mscale: scale,
  mscale_all_dim: scale,
});

/** How much more scores count in a context that is longer by `factor`: 1 where it is not. */
export const yarnTemperature = (factor: number, share = 1) => (factor <= 1 ? 1 : 0.1 * share * Math.log(factor) + 1);

/** Slow pairs are stretched by a factor, fast ones stay, those between are mixed (YaRN, arXiv 2309.00071). */
export const rope: Rope<YarnRope> = {
  schema: z.pipe(
    fields,
    z.transform((f) => {
      const originalMaxPositions = f.original_max_position_embeddings;
      const factor = f.factor ?? f.max_position_embeddings / originalMaxPositions;
      const { mscale, mscale_all_dim: all } = f;
      return {
        type: "yarn" as const,
        factor,
        betaFast: f.beta_fast,
        betaSlow: f.beta_slow,
        originalMaxPositions,
        truncate: f.truncate,
        attentionFactor:
          f.attention_factor ??
          (mscale && all ? yarnTemperature(factor, mscale) / yarnTemperature(factor, all) : yarnTemperature(factor)),
      };
    }),
  ),
  scaled({ theta, factor, betaFast, betaSlow, originalMaxPositions, truncate }, plain) {
    const width = 2 * plain.length;
    /** The pair, not a whole one, that turns so often over the original context. */
    const pairOf = (turns: number) =>
      (width * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
    const [fast, slow] = [pairOf(betaFast), pairOf(betaSlow)];
    const first = Math.max(0, truncate ? Math.floor(fast) : fast);
    const last = Math.min(width - 1, truncate ? Math.ceil(slow) : slow);
    const span = first === last ? 0.001 : last - first;
    return plain.map((frequency, i) => {
      const stretched = Math.min(1, Math.max(0, (i - first) / span));
      return frequency * (stretched / factor + (1 - stretched));
    });
  },
  attentionFactor: ({ attentionFactor }) => attentionFactor,
};
