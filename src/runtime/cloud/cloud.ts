import type { TokenSource } from "../chosenToken.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import type { Route } from "./route.js";

/** A server that verifies what a small model here proposes: `generate(draft, prompt, { cloud })`. */
export interface Cloud {
  /** The server's address. */
  readonly url: string;
  /** The server's name of the model that answers. */
  readonly model: string;
  /** Tokens of its vocabulary, padding included. */
  readonly vocabSize: number;
  /** Tokens that end its texts. */
  readonly stopIds: readonly number[];
  /** Most tokens of a text, prompt and answer. */
  readonly context: number;
  /**
   * The tokens of one generation.
   * @param sequence of the model that proposes
   * @param sampler how the server is to choose
   * @throws UsageError where the sequence cannot take tokens back, and for a budget without its threshold
   */
  open(
    sequence: Sequence,
    sampler: Sampler,
    options: { draftTokens?: number; route?: Route; stopIds?: readonly number[]; signal?: AbortSignal },
  ): TokenSource;
}
