import type { Activation } from "../kernels/index.js";
import type { Routing } from "./cloud/routing.js";
import type { Speculation } from "./speculate/draft.js";

export interface ChosenToken {
  id: number;
  /** ln of its probability, where it was asked for. */
  logprob?: number;
}

/** Where the tokens of a generation come from, one after another. */
export interface TokenSource extends Disposable {
  /** Whether a token is under way while the consumer looks at the one before it. */
  readonly worksAhead: boolean;
  /** What was proposed and accepted, where a draft proposes. */
  readonly speculation?: Speculation;
  /** What was asked of a server, where tokens or texts are routed. */
  readonly routing?: Routing;
  /** @param logits [1, logitCols] after the prompt; released. @param more whether there is room, and a wish, for a token after this one */
  first(logits: Activation, more: () => boolean): Promise<ChosenToken>;
  /** Runs `last`, which `first` or `next` gave, and chooses the token after it. @param more as in `first` */
  next(last: number, more: () => boolean): Promise<ChosenToken>;
}
