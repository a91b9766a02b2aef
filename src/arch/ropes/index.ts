import type * as z from "zod/mini";
import { rope as byDefault } from "./default.js";
import { rope as dynamic } from "./dynamic.js";
import { rope as linear } from "./linear.js";
import { rope as llama3 } from "./llama3.js";
import { rope as longrope } from "./longrope.js";
import type { Rope } from "./rope.js";
import { rope as yarn } from "./yarn.js";

/** A rotary embedding: how fast each pair of columns turns from position to position. */
export type RopeSpec = z.output<(typeof ropes)[keyof typeof ropes]["schema"]> & { theta: number };

/** `rope_type` of config.json → what it means. */
export const ropes = { default: byDefault, linear, dynamic, yarn, longrope, su: longrope, llama3 };

const kindOf = (rope: RopeSpec) => ropes[rope.type] as unknown as Rope<RopeSpec>;

/**
 * What of the length of a context the frequencies depend on: contexts of which it is equal share their tables.
 * @param length in tokens, the most that a sequence may have
 */
export const ropeReach = (rope: RopeSpec, length: number): number => kindOf(rope).reach?.(rope, length) ?? 0;

/** What cos and sin are multiplied by. */
export const ropeAttentionFactor = (rope: RopeSpec): number => kindOf(rope).attentionFactor?.(rope) ?? 1;

/** A list of the rope that does not have an entry for every pair of `width` columns, by the name of its field. */
export function misfitOf(rope: RopeSpec, width: number): { field: string; entries: number } | undefined {
  for (const [field, entries] of Object.entries(kindOf(rope).listed?.(rope) ?? {})) {
    if (entries !== width / 2) return { field, entries };
  }
  return undefined;
}

/** Radians per position of each pair: f64 [width / 2] (RoFormer, arXiv 2104.09864). @param length of the context */
export function ropeFrequencies(rope: RopeSpec, width: number, length: number): Float64Array {
  const plain = Float64Array.from({ length: width / 2 }, (_, i) => rope.theta ** ((-2 * i) / width));
  return kindOf(rope).scaled(rope, plain, ropeReach(rope, length));
}

/** cos and sin of positions 0 … and of every pair: f32 [positions, width / 2] each. */
export interface RopeTables {
  cos: Float32Array<ArrayBuffer>;
  sin: Float32Array<ArrayBuffer>;
}

/**
 * Angles are f64.
 * @param options.length of the context; default `positions`
 * @param options.factor of cos and sin; default that of the rope. 1 for turning what was rotated before.
 */
export function ropeTables(
  rope: RopeSpec,
  width: number,
  positions: number,
  options: { length?: number; factor?: number } = {},
): RopeTables {
  const { length = positions, factor = ropeAttentionFactor(rope) } = options;
  const frequencies = ropeFrequencies(rope, width, length);
  const half = width / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      cos[p * half + i] = factor * Math.cos(p * frequencies[i]);
      sin[p * half + i] = factor * Math.sin(p * frequencies[i]);
    }
  }
  return { cos, sin };
}
