import type { Model } from "../../model/index.js";
import type { Sequence } from "../../runtime/index.js";
import { keepsItsOwnCache } from "../../runtime/internal.js";
import type { Variant } from "./request.js";

/** A sequence with what is known about its tokens. */
export interface HeldSequence {
  readonly sequence: Sequence;
  readonly variant: Variant;
  /** What a cache of its own may come to; 0 in pages. */
  readonly ownBytes: number;
  /** First tokens that a prompt with the same beginning would have run just so. */
  exact: number;
  busy: boolean;
  usedAt: number;
}

/**
 * Notes which tokens a prompt with the same beginning would have run just so, after a pass. Dense tokens are the same whatever
 * comes behind them; sparse ones depend on where the prompt ended.
 * @param sparseFrom first position that thresholds apply to
 */
export function noteExact(held: HeldSequence, sparseFrom: number): void {
  const { sequence, variant } = held;
  const effective = variant.thresholds ?? sequence.model.thresholds;
  const dense = effective === undefined || effective === "dense";
  held.exact = dense ? sequence.length : Math.min(sequence.length, sparseFrom);
}

/** Whether keys and values can be copied from one sequence to another. */
export const copies = ({ variant: { kv } }: Pick<HeldSequence, "variant">, model: Model): boolean =>
  kv?.eviction === undefined && kv?.codes === undefined && !keepsItsOwnCache(model);

/** Tokens at the beginning that are the same, at least one less than the prompt has: something has to run. */
export function commonTokens(
  prompt: Uint32Array,
  { sequence, exact }: Pick<HeldSequence, "sequence" | "exact">,
): number {
  return commonLength(prompt, sequence.tokens, Math.min(exact, sequence.length, prompt.length - 1));
}

/** Tokens at the beginning of both that are the same, of the first `most`. */
export function commonLength(a: ArrayLike<number>, b: ArrayLike<number>, most: number): number {
  let common = 0;
  while (common < most && a[common] === b[common]) common++;
  return common;
}
