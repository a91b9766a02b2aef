import { Random } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { ChosenToken, TokenSource } from "../chosenToken.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import type { Speculation } from "../speculate/draft.js";
import { checkTakesBack, type DraftLength, draftLengthFor } from "../speculate/draftLength.js";
import { proposeFrom } from "../speculate/modelDraft.js";
import type { Cloud } from "./cloud.js";
import { CutSampler, pairsOf } from "./cutSampler.js";
import type { Link } from "./link.js";
import { CloudSession } from "./session.js";

/**
 * Speculative decoding over a connection (algorithm as in `SpeculativeSource`): the sequence's own model proposes, and a server
 * verifies. The text follows the server's law whatever is proposed; the server's random numbers are its own.
 */
export class CloudSource implements TokenSource {
  readonly worksAhead = false;
  readonly #length: DraftLength;
  readonly #proposer: CutSampler;
  readonly #ending = new AbortController();
  readonly #signal: AbortSignal;
  #session: CloudSession | undefined;
  /** Prompt and all that was decided; the newest `#ahead` are not given yet. */
  #text: number[] = [];
  #ahead: number[] = [];
  #looked = 0;
  readonly #done = { rounds: 0, drafted: 0, accepted: 0, draftMs: 0, verifyMs: 0, networkMs: 0 };

  /** @throws UsageError where the sequence could not take back what was proposed in vain */
  constructor(
    readonly link: Link,
    readonly cloud: Cloud,
    readonly sequence: Sequence,
    readonly sampler: Sampler,
    readonly options: { draftTokens?: number; signal?: AbortSignal; model?: string },
  ) {
    checkTakesBack(sequence);
    this.#length = draftLengthFor(sampler, options.draftTokens);
    // What is drawn here and what is drawn there must not come from the same numbers.
    const seed = Math.floor(new Random(sampler.seed).uniform() * 2 ** 52);
    this.#proposer = new CutSampler({ ...sampler.options, seed }, cloud.vocabSize);
    const { signal } = options;
    this.#signal = signal === undefined ? this.#ending.signal : AbortSignal.any([signal, this.#ending.signal]);
  }

  get speculation(): Speculation {
    const acceptance = this.#looked === 0 ? undefined : this.#done.accepted / this.#looked;
    return { draft: this.cloud.url, ...this.#done, acceptance };
  }

  async first(logits: Activation): Promise<ChosenToken> {
    this.sequence.model.backend.release(logits);
    return this.begin();
  }

  /** As `first`, for a sequence whose logits nobody needs. */
  async begin(): Promise<ChosenToken> {
    const { sequence, sampler, options } = this;
    this.#text = [...sequence.tokens];
    const { session, next } = await CloudSession.open(this.link, this.cloud, {
      prompt: this.#text,
      // The newest token is never run.
      maxTokens: sequence.capacity - this.#text.length + 1,
      sampler,
      seed: sampler.seed,
      model: options.model,
      signal: this.#signal,
    });
    this.#session = session;
    return { id: this.#take([next]) };
  }

  async next(): Promise<ChosenToken> {
    if (this.#ahead.length > 0) return { id: this.#ahead.shift()! };
    return { id: this.#take(await this.#round()) };
  }

  /** Notes what was decided. @returns the first of it */
  #take(decided: readonly number[]): number {
    this.#text.push(...decided);
    const [id, ...ahead] = decided;
    this.#ahead = ahead;
    return id;
  }

  async #round(): Promise<number[]> {
    const { sequence, cloud } = this;
    const startMs = performance.now();
    const most = Math.min(this.#length.next(), sequence.capacity - this.#text.length);
    const { ids, laws } =
      most < 1
        ? { ids: [], laws: undefined }
        : await proposeFrom(sequence, this.#text, most, this.#proposer, cloud.vocabSize);
    const draftedMs = performance.now();
    const { accepted, next, serverMs } = await this.#session!.verify(this.#text.slice(-1), ids, laws?.map(pairsOf));
    const [draftMs, verifyMs] = [draftedMs - startMs, performance.now() - draftedMs];
    this.#length.record({ drafted: ids.length, accepted, draftMs, verifyMs });
    this.#looked += Math.min(ids.length, accepted + 1);
    const done = this.#done;
    done.rounds++;
    done.drafted += ids.length;
    done.accepted += accepted;
    done.draftMs += draftMs;
    done.verifyMs += verifyMs;
    done.networkMs += Math.max(0, verifyMs - serverMs);
    return [...ids.slice(0, accepted), next];
  }

  /** Ends the session. The sequence is left with tokens that were given. */
  [Symbol.dispose](): void {
    const { sequence } = this;
    this.#ending.abort(new DOMException("the generation has ended", "AbortError"));
    const given = this.#text.length - this.#ahead.length;
    let common = 0;
    while (common < Math.min(given, sequence.length) && sequence.tokens[common] === this.#text[common]) common++;
    if (this.#text.length > 0 && common < sequence.length) sequence.rewind(sequence.canRewind(common) ? common : 0);
  }
}
