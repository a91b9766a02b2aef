import type { SlotRange } from "../../kernels/index.js";
import type { ParameterRules, ParameterValues } from "../parameters.js";
import type { DynamicPattern } from "./dynamic.js";

/** Who looks: patterns may differ by layer and by query head. */
export interface Viewer {
  readonly layer: number;
  readonly head: number;
}

/**
 * An attention pattern that is known beforehand: which positions a query sees, as ranges. They may overlap, and reach over the beginning or past the
 * query: what lies there is cut off.
 */
export interface FixedPattern<R extends ParameterRules = ParameterRules> {
  readonly summary: string;
  readonly parameters: R;
  /** After how many query heads, and layers, what is seen repeats; default 1: all alike. */
  readonly periods?: (values: ParameterValues<R>) => { heads?: number; layers?: number };
  /** Prepares the pattern; the function it gives says what the query at `position` sees. */
  see(values: ParameterValues<R>): (position: number, viewer: Viewer) => Iterable<SlotRange>;
}

/** An entry of the table: what is seen is known beforehand, or decided by queries and keys. */
export type AttentionPattern = FixedPattern | DynamicPattern;

/** Checks a pattern's types where it is declared. */
export const pattern = <const R extends ParameterRules>(entry: FixedPattern<R>): FixedPattern =>
  entry as unknown as FixedPattern;

/** The last `size` positions up to the query. */
export const local = (position: number, size: number): SlotRange => [position - size + 1, position + 1];

/** Single positions position − step · k, for k from 0 as long as they are above `after`. */
export function* every(position: number, step: number, after = -1): Iterable<SlotRange> {
  for (let p = position; p > after; p -= step) yield [p, p + 1];
}
