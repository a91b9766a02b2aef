import type { Activation } from "../../kernels/index.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";

/** Tokens that are proposed to follow. */
export interface Proposal {
  readonly ids: readonly number[];
  /** The law that each was drawn from, after the sampler's filters, f64 [vocabulary]; left out where nothing was drawn. */
  readonly laws?: readonly Float64Array[];
  /**
   * The residual stream f32 [1 + ids.length, hiddenSize] of the token before them and of them, after the target's first `layers`
   * blocks, which left their keys and values; taken over by the caller.
   */
  readonly begun?: { readonly stream: Activation; readonly layers: number };
}

/** Proposes tokens for one generation. */
export interface Drafter extends Disposable {
  /**
   * @param last the newest token, which the target has not run yet; those that it has are its sequence's
   * @param most tokens at most
   */
  propose(last: number, most: number): Promise<Proposal>;
}

/** A way to propose tokens. */
export interface Draft {
  /** As it was chosen: a model's location, `lookup`, `layers=4`. */
  readonly text: string;
  /** @throws UsageError where it cannot propose for this target */
  open(target: Sequence, sampler: Sampler): Drafter;
}

/** What speculation did in one generation. */
export interface Speculation {
  draft: string;
  /** Passes of the target after that over the prompt. */
  rounds: number;
  /** Tokens that were proposed, and those of them that were accepted. */
  drafted: number;
  accepted: number;
  /** Share of the proposed tokens that were looked at, and found right: those behind a wrong one are not looked at. */
  acceptance: number | undefined;
  draftMs: number;
  verifyMs: number;
  /** Of verifying, where a server did it, what neither it nor this machine computed in: the way there and back. */
  networkMs?: number;
}
