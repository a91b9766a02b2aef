import * as z from "zod";

/** Bounds that no known model comes near. */
export const factor = z.number().min(1e-3).max(1e6);

/** One kind of rotary embedding: its fields in config.json, in our names, and what it does to a plain frequency. */
export interface Rope<T extends { type: string }> {
  schema: z.ZodType<T>;
  /** @param frequency radians per position, theta ** (−2i / width) */
  scaled(rope: T, frequency: number): number;
}
