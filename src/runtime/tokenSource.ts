import { UsageError } from "../core/index.js";
import type { Activation, Chosen, TopK } from "../kernels/index.js";
import { explainNonFinite, firstNonFiniteOf } from "../model/index.js";
import type { ChosenToken, TokenSource } from "./chosenToken.js";
import type { Cloud, Route } from "./cloud/index.js";
import { logProbability } from "./logits.js";
import type { Sampler } from "./samplers.js";
import type { Sequence } from "./sequence.js";
import type { Draft } from "./speculate/index.js";

export interface SourceOptions {
  logprobs?: boolean;
  ahead?: boolean;
  draft?: Draft;
  draftTokens?: number;
  cloud?: Cloud;
  route?: Route;
  stopIds?: readonly number[];
  signal?: AbortSignal;
}

/**
 * Where the device can choose the most probable token itself, and none is thrown away for it, the next one is enqueued
 * before this one is read.
 * @throws UsageError for a draft, or a cloud, with early exit, and for a cloud with a draft or log probabilities
 */
export async function tokenSource(
  sequence: Sequence,
  sampler: Sampler,
  { logprobs = false, ahead = true, draft, draftTokens, cloud, route, stopIds, signal }: SourceOptions,
): Promise<TokenSource> {
  const { exits } = sequence;
  if (cloud !== undefined && (draft !== undefined || logprobs)) {
    throw new UsageError(
      `a cloud verifies what this model proposes: it goes with no ${draft === undefined ? "logprobs" : "other draft"}`,
    );
  }
  if ((draft !== undefined || cloud !== undefined) && exits !== undefined) {
    throw new UsageError(
      `a draft and early exit (${exits.text}): tokens that are verified run through all layers; take one of the two`,
    );
  }
  if (route !== undefined && cloud === undefined) {
    throw new UsageError(`${route.text} routes to a server: give the cloud, as connectCloud gives it`);
  }
  if (draft !== undefined) {
    // Loaded where it is asked for: a page without drafts does not pay for it.
    const { SpeculativeSource } = await import("./speculate/source.js");
    return new SpeculativeSource(sequence, sampler, draft, { logprobs, draftTokens });
  }
  if (cloud !== undefined) return cloud.open(sequence, sampler, { draftTokens, route, stopIds, signal });
  return ahead && sampler.greedy && !logprobs && sequence.worksAhead
    ? new Ahead(sequence)
    : new OneByOne(sequence, sampler, logprobs);
}

class OneByOne implements TokenSource {
  readonly worksAhead = false;

  constructor(
    readonly sequence: Sequence,
    readonly sampler: Sampler,
    readonly logprobs: boolean,
  ) {}

  /** Chooses from logits [1, logitCols] and releases them. */
  async first(logits: Activation): Promise<ChosenToken> {
    const { sampler, logprobs, sequence } = this;
    const { backend, config } = sequence.model;
    try {
      if (sampler.greedy && !logprobs) return { id: await mostProbable(sequence, await backend.topK(logits, 1)) };
      const row = (await backend.read(logits)).subarray(0, config.vocabSize);
      if (firstNonFiniteOf(row) >= 0) throw await notFinite(sequence);
      const id = sampler.pick(row, sequence.tokens);
      return logprobs ? { id, logprob: logProbability(row, id) } : { id };
    } finally {
      backend.release(logits);
    }
  }

  async next(last: number): Promise<ChosenToken> {
    return this.first(await this.sequence.run(Uint32Array.of(last)));
  }

  [Symbol.dispose](): void {}
}

class Ahead implements TokenSource {
  readonly worksAhead = true;
  /** The token after the last one given, where one was wanted. */
  #chosen: Chosen | undefined;

  constructor(readonly sequence: Sequence) {}

  first(logits: Activation, more: () => boolean): Promise<ChosenToken> {
    return this.#give(this.#choose(logits), more);
  }

  next(last: number, more: () => boolean): Promise<ChosenToken> {
    this.sequence.commit(last);
    return this.#give(this.#chosen!, more);
  }

  async #give(chosen: Chosen, more: () => boolean): Promise<ChosenToken> {
    this.#chosen = undefined;
    try {
      if (more()) this.#chosen = this.#choose(await this.sequence.runAhead(chosen));
    } catch (error) {
      chosen[Symbol.dispose]();
      throw error;
    }
    return { id: await mostProbable(this.sequence, await chosen.read()) };
  }

  #choose(logits: Activation): Chosen {
    const { backend } = this.sequence.model;
    try {
      return backend.choose!(logits);
    } finally {
      backend.release(logits);
    }
  }

  [Symbol.dispose](): void {
    this.#chosen?.[Symbol.dispose]();
    this.#chosen = undefined;
  }
}

/** The largest logit is NaN where any is. */
async function mostProbable(sequence: Sequence, [{ ids, values }]: readonly TopK[]): Promise<number> {
  if (!Number.isFinite(values[0])) throw await notFinite(sequence);
  return ids[0];
}

const notFinite = ({ model, tokens }: Sequence) => explainNonFinite(model, Uint32Array.from(tokens));
