import type { Random } from "../../core/index.js";

/** Standard deviation of the first steps: three of them reach from the middle to the edge. */
export const firstStep = (bound: number): number => bound / 3;

/** The nearest point of the box. */
export const clip = (point: Float64Array, bound: number): Float64Array =>
  point.map((x) => Math.max(-bound, Math.min(bound, x)));

/** f64 [length], standard normal. */
export const normalPoint = (length: number, random: Random): Float64Array =>
  Float64Array.from({ length }, () => random.normal());
