import type { Attention } from "../sight/index.js";
import type { KvChoice } from "./index.js";
import type { KvPages } from "./pages.js";

/** What a sequence remembers, and how it attends to it. */
export interface MemoryOptions {
  /** What tokens see of those before them; default all that the model was made to see. See `parseAttention`. */
  attention?: Attention;
  /** What is held of a text; default everything. See `parseKv`. */
  kv?: KvChoice;
  /**
   * Most tokens of one pass where a policy throws away, or makes codes of groups: all of them see one another before any of
   * them goes, or becomes codes, and the cache has room for them. Default: 128, and at most a quarter of the budget.
   */
  passTokens?: number;
  /**
   * Where its keys and values lie together with those of other sequences. Not with a policy that throws away or makes codes, nor
   * with an attention pattern that looks at keys. Default: a cache of its own.
   */
  pages?: KvPages;
}
