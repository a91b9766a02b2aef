import type { BatchArray } from "../objective.js";

/** Name, in a batch, of what is added to the scores of attention that sees all: f32 [sequences, 1, 1, 1, window]. */
export const fillingName = "filling";

/** f32 [sequences, 1, 1, 1, length]: far below 0 where a text has ended. */
export function fillingOf(lengths: Uint32Array, length: number): BatchArray {
  const values = new Float32Array(lengths.length * length);
  for (const [s, end] of lengths.entries()) values.fill(-1e9, s * length + end, (s + 1) * length);
  return { shape: [lengths.length, 1, 1, 1, length], values };
}
