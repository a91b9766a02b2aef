import type { Activation } from "../../kernels/index.js";
import { explainNonFinite } from "../../model/index.js";
import type { ChosenToken, TokenSource } from "../chosenToken.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import { decide } from "./decide.js";
import type { Draft, Drafter, Proposal, Speculation } from "./draft.js";
import { checkTakesBack, type DraftLength, draftLengthFor } from "./draftLength.js";

/**
 * Speculative decoding: a draft proposes tokens, the target runs them all in one pass, and those are kept that it might as
 * well have drawn itself. Its law, and its greedy choice, stay what they are.
 */
export class SpeculativeSource implements TokenSource {
  readonly worksAhead = false;
  readonly #drafter: Drafter;
  readonly #length: DraftLength;
  /** Tokens that are decided and not given yet; all but the newest were run. */
  #decided: ChosenToken[] = [];
  #looked = 0;
  readonly #done: Omit<Speculation, "draft" | "acceptance"> = {
    rounds: 0,
    drafted: 0,
    accepted: 0,
    draftMs: 0,
    verifyMs: 0,
  };

  /** @throws UsageError where the sequence could not take back what was proposed in vain */
  constructor(
    readonly sequence: Sequence,
    readonly sampler: Sampler,
    readonly draft: Draft,
    readonly options: { logprobs: boolean; draftTokens?: number },
  ) {
    checkTakesBack(sequence);
    this.#length = draftLengthFor(sampler, options.draftTokens);
    this.#drafter = draft.open(sequence, sampler);
  }

  get speculation(): Speculation {
    const acceptance = this.#looked === 0 ? undefined : this.#done.accepted / this.#looked;
    return { draft: this.draft.text, ...this.#done, acceptance };
  }

  async first(logits: Activation): Promise<ChosenToken> {
    const { accepted: _, decided } = await this.#decide(logits, { ids: [] }, this.sequence.tokens);
    return decided[0];
  }

  async next(last: number): Promise<ChosenToken> {
    if (this.#decided.length === 0) this.#decided = await this.#round(last);
    return this.#decided.shift()!;
  }

  async #round(last: number): Promise<ChosenToken[]> {
    const { sequence } = this;
    const { length } = sequence;
    const room = sequence.capacity - length - 1;
    const startMs = performance.now();
    const most = Math.min(this.#length.next(), room);
    const proposal = most === 0 ? { ids: [] } : await this.#drafter.propose(last, most);
    const drafted = proposal.ids.length;
    const draftedMs = performance.now();
    const logits = await this.#verify(last, proposal);
    const { accepted, decided } = await this.#decide(logits, proposal, [...sequence.tokens.slice(0, length), last]);
    sequence.rewind(length + 1 + accepted);
    const [draftMs, verifyMs] = [draftedMs - startMs, performance.now() - draftedMs];
    this.#length.record({ drafted, accepted, draftMs, verifyMs });
    this.#looked += Math.min(drafted, accepted + 1);
    const done = this.#done;
    done.rounds++;
    done.drafted += drafted;
    done.accepted += accepted;
    done.draftMs += draftMs;
    done.verifyMs += verifyMs;
    return decided;
  }

  /** @returns logits [1 + proposed, logitCols] */
  async #verify(last: number, { ids, begun }: Proposal): Promise<Activation> {
    const { sequence } = this;
    const rows = Uint32Array.from([last, ...ids]);
    if (begun === undefined) return sequence.runRows(rows);
    const { model } = sequence;
    try {
      await sequence.runBlocks(begun.stream, { from: begun.layers, to: model.config.layers });
      await sequence.ranRows(rows);
      return model.head(begun.stream);
    } finally {
      model.backend.release(begun.stream);
    }
  }

  #decide(logits: Activation, proposal: Proposal, occurred: readonly number[]) {
    const { sampler, sequence, options } = this;
    const explain = () => explainNonFinite(sequence.model, Uint32Array.from(sequence.tokens));
    return decide(sequence.model, logits, proposal, occurred, sampler, { logprobs: options.logprobs, explain });
  }

  /** The sequence is left with the tokens that were given. */
  [Symbol.dispose](): void {
    const { sequence } = this;
    if (this.#decided.length > 1) sequence.rewind(sequence.length - (this.#decided.length - 1));
    this.#decided = [];
    this.#drafter[Symbol.dispose]();
  }
}
