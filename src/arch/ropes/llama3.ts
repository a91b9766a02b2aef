import * as z from "zod/mini";
import { factor, positions, type Rope } from "./rope.js";

export interface Llama3Rope {
  type: "llama3";
  factor: number;
  lowFreqFactor: number;
  highFreqFactor: number;
  originalMaxPositions: number;
}

const fields = z
  .object({
    factor,
    low_freq_factor: factor,
    high_freq_factor: factor,
    original_max_position_embeddings: positions,
  })
  .check(
    z.refine((f) => f.high_freq_factor > f.low_freq_factor, {
      path: ["high_freq_factor"],
      message: "must be greater than low_freq_factor",
    }),
  );

/** Llama 3.1: slow pairs are stretched by a factor, fast ones stay, those between are mixed. */
export const rope: Rope<Llama3Rope> = {
  schema: z.pipe(
    fields,
    z.transform((f) => ({
      type: "llama3" as const,
      factor: f.factor,
      lowFreqFactor: f.low_freq_factor,
      highFreqFactor: f.high_freq_factor,
      originalMaxPositions: f.original_max_position_embeddings,
    })),
  ),
  scaled({ factor, lowFreqFactor, highFreqFactor, originalMaxPositions }, plain) {
    return plain.map((frequency) => {
      const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
      const kept = Math.min(1, Math.max(0, (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)));
      return frequency * (kept + (1 - kept) / factor);
    });
  },
};
