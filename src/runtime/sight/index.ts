import type { SlotRange } from "../../kernels/index.js";
import { parseChoice } from "../parameters.js";
import { bigbird } from "./bigbird.js";
import { causal } from "./causal.js";
import { dilated } from "./dilated.js";
import { fixed } from "./fixed.js";
import { longformer } from "./longformer.js";
import type { AttentionPattern, Viewer } from "./pattern.js";
import { strided } from "./strided.js";
import { window } from "./window.js";

/** All attention patterns by the name that a text chooses them with. */
export const attentionPatterns: Readonly<Record<string, AttentionPattern>> = {
  causal,
  window,
  longformer,
  strided,
  fixed,
  dilated,
  bigbird,
};

/** A pattern with its parameters. Any number of sequences share one. */
export interface Attention {
  /** As it was written: `longformer:window=128,global=16`. */
  readonly text: string;
  /** After how many query heads, and layers, what is seen repeats. */
  readonly periods: { readonly heads: number; readonly layers: number };
  /** Positions that the query at `position` sees, as ranges that may overlap and reach over the ends. */
  see(position: number, viewer: Viewer): Iterable<SlotRange>;
}

/**
 * Reads an attention pattern: `longformer:window=128,global=16`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseAttention(text: string): Attention {
  const { entry, values } = parseChoice("an attention pattern", attentionPatterns, text);
  const { heads = 1, layers = 1 } = entry.periods?.(values as never) ?? {};
  return { text, periods: { heads, layers }, see: entry.see(values as never) };
}
