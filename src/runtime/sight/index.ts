import type { SlotRange } from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import { parseChoice } from "../parameters.js";
import { bigbird } from "./bigbird.js";
import { blockSparse } from "./blockSparse.js";
import { causal } from "./causal.js";
import { dilated } from "./dilated.js";
import type { Seeker } from "./dynamic.js";
import { fixed } from "./fixed.js";
import { longformer } from "./longformer.js";
import { minference } from "./minference.js";
import type { AttentionPattern, Viewer } from "./pattern.js";
import { quest } from "./quest.js";
import { strided } from "./strided.js";
import { verticalSlash } from "./verticalSlash.js";
import { window } from "./window.js";
import { xattention } from "./xattention.js";

/** All attention patterns by the name that a text chooses them with. */
export const attentionPatterns: Readonly<Record<string, AttentionPattern>> = {
  causal,
  window,
  longformer,
  strided,
  fixed,
  dilated,
  bigbird,
  quest,
  "vertical-slash": verticalSlash,
  "block-sparse": blockSparse,
  minference,
  xattention,
};

/** A pattern with its parameters. Any number of sequences share one. */
export interface Attention {
  /** As it was written: `longformer:window=128,global=16`. */
  readonly text: string;
  /** After how many query heads, and layers, what is seen repeats. */
  readonly periods: { readonly heads: number; readonly layers: number };
  /** Positions that the query at `position` sees, as ranges that may overlap and reach over the ends. */
  see(position: number, viewer: Viewer): Iterable<SlotRange>;
  /**
   * Where that is decided by queries and keys: begins for one sequence of at most `capacity` tokens. `see` is then what may be
   * seen at most.
   */
  seek?(model: Model, capacity: number): Seeker;
}

/**
 * Reads an attention pattern: `longformer:window=128,global=16`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseAttention(text: string): Attention {
  const { entry, values } = parseChoice("an attention pattern", attentionPatterns, text);
  if ("seek" in entry) {
    const see = (position: number): SlotRange[] => [[0, position + 1]];
    return { text, periods: { heads: 1, layers: 1 }, see, seek: entry.seek(values as never) };
  }
  const { heads = 1, layers = 1 } = entry.periods?.(values as never) ?? {};
  return { text, periods: { heads, layers }, see: entry.see(values as never) };
}
