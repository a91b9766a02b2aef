import type { z } from "zod";
import { rope as byDefault } from "./default.js";
import { rope as linear } from "./linear.js";
import { rope as llama3 } from "./llama3.js";

/** A rotary embedding: how fast each pair of columns turns from position to position. */
export type RopeSpec = z.output<(typeof ropes)[keyof typeof ropes]["schema"]> & { theta: number };

/** `rope_type` of config.json → what it means. */
export const ropes = { default: byDefault, linear, llama3 };

/** Radians per position of each pair: f64 [width / 2] (RoFormer, arXiv 2104.09864). */
export function ropeFrequencies(rope: RopeSpec, width: number): Float64Array {
  const plain = Float64Array.from({ length: width / 2 }, (_, i) => rope.theta ** ((-2 * i) / width));
  const { scaled } = ropes[rope.type] as { scaled(rope: RopeSpec, frequency: number): number };
  return plain.map((frequency) => scaled(rope, frequency));
}

/** cos and sin of every position and pair: f32 [positions, width / 2] each. Angles are f64. */
export function ropeTables(rope: RopeSpec, width: number, positions: number): { cos: Float32Array; sin: Float32Array } {
  const frequencies = ropeFrequencies(rope, width);
  const half = width / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      cos[p * half + i] = Math.cos(p * frequencies[i]);
      sin[p * half + i] = Math.sin(p * frequencies[i]);
    }
  }
  return { cos, sin };
}
