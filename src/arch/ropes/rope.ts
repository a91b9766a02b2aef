import * as z from "zod/mini";

/** Bounds that no known model comes near. */
export const factor = z.number().check(z.gte(1e-3), z.lte(1e6));
export const positions = z.int().check(z.gte(1), z.lte(2 ** 30));

/** One kind of rotary embedding: its fields in config.json, in our names, and what it does to plain frequencies. */
export interface Rope<T extends { type: string }> {
  /**
   * Of the fields of the rope, and beside them `max_position_embeddings` and `original_max_position_embeddings`, which are
   * there whatever the file leaves out.
   */
  schema: z.core.$ZodType<T>;
  /**
   * @param plain radians per position of each pair, theta ** (−2i / width)
   * @param reach see below; 0 where there is none
   */
  scaled(rope: T & { theta: number }, plain: Float64Array, reach: number): Float64Array;
  /** Where frequencies depend on the length of the context: one number for all lengths that have the same. */
  reach?(rope: T, length: number): number;
  /** cos and sin are multiplied by this, so that scores are by its square. Default 1. */
  attentionFactor?(rope: T): number;
  /** Entries of lists that are one for every pair. */
  listed?(rope: T): Readonly<Record<string, number>>;
}
