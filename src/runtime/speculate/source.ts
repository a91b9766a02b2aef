import { UsageError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import { explainNonFinite, firstNonFiniteOf } from "../../model/index.js";
import type { ChosenToken, TokenSource } from "../chosenToken.js";
import { logProbability } from "../logits.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import { accept, acceptGreedy } from "./accept.js";
import type { Draft, Drafter, Proposal, Speculation } from "./draft.js";
import { DraftLength, longestDraft } from "./draftLength.js";

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
    const { keepsAll, exactTokens } = sequence;
    if (!keepsAll || exactTokens < longestDraft) {
      throw new UsageError(
        "a draft needs a KV policy that keeps every token, with groups of codes a residual of at least " +
          `${longestDraft}: what was proposed in vain must be taken back`,
      );
    }
    const { draftTokens = 1 } = options;
    if (draftTokens > longestDraft)
      throw new UsageError(`${draftTokens} draft tokens; there are at most ${longestDraft}`);
    // Times must not decide which random numbers a token gets: the same seed then gives the same text.
    const fixed = options.draftTokens ?? (sampler.greedy || sampler.options.seed === undefined ? undefined : 4);
    this.#length = new DraftLength(fixed);
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

  /** @param logits released @param occurred tokens before those proposed */
  async #decide(logits: Activation, { ids, laws }: Proposal, occurred: readonly number[]) {
    const { sampler, sequence, options } = this;
    const { backend, config } = sequence.model;
    const fail = async (): Promise<never> => {
      throw await explainNonFinite(sequence.model, Uint32Array.from(sequence.tokens));
    };
    try {
      if (sampler.greedy && !options.logprobs) {
        const tops = await backend.topK(logits, 1);
        if (tops.some(({ values }) => !Number.isFinite(values[0]))) await fail();
        const { accepted, next } = acceptGreedy(
          ids,
          tops.map((top) => top.ids[0]),
        );
        return { accepted, decided: [...ids.slice(0, accepted), next].map((id): ChosenToken => ({ id })) };
      }
      const values = await backend.read(logits);
      if (firstNonFiniteOf(values) >= 0) await fail();
      const row = (i: number) => values.subarray(i * logits.cols, i * logits.cols + config.vocabSize);
      const { accepted, next } = accept(
        ids,
        (i) => laws?.[i],
        (i) => sampler.law(row(i), [...occurred, ...ids.slice(0, i)]),
        () => sampler.uniform(),
        (weights) => sampler.draw(weights),
      );
      const decided = [...ids.slice(0, accepted), next].map(
        (id, i): ChosenToken => (options.logprobs ? { id, logprob: logProbability(row(i), id) } : { id }),
      );
      return { accepted, decided };
    } finally {
      backend.release(logits);
    }
  }

  /** The sequence is left with the tokens that were given. */
  [Symbol.dispose](): void {
    const { sequence } = this;
    if (this.#decided.length > 1) sequence.rewind(sequence.length - (this.#decided.length - 1));
    this.#decided = [];
    this.#drafter[Symbol.dispose]();
  }
}
