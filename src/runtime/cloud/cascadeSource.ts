import { UsageError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { ChosenToken, TokenSource } from "../chosenToken.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import { checkTakesBack } from "../speculate/draftLength.js";
import { mean } from "./calibrateRoute.js";
import { readRow } from "./readRow.js";
import type { Route } from "./route.js";
import { noRouting, type Routing } from "./routing.js";
import type { CloudSource } from "./source.js";

/** What decides of a text. */
export interface CascadeOptions {
  readonly route: Route & { least: number; span: number };
  /** Tokens that end a text. */
  readonly stopIds: readonly number[];
  /** Writes all of the text, where the small model is not sure. */
  readonly openCloud: () => CloudSource;
  /** Tokens of the text at most. */
  readonly maxTokens?: number;
  readonly signal?: AbortSignal;
}

/**
 * One decision for a text: a small model writes the first tokens; where it was sure of them it goes on, else they are thrown away and the
 * server writes the text (FrugalGPT, arXiv 2305.05176).
 */
export class CascadeSource implements TokenSource {
  readonly worksAhead = false;
  readonly routing: Routing;
  /** Written and not given yet; tokens that were given, prompt included. */
  #ahead: number[] = [];
  #given = 0;
  #cloud: CloudSource | undefined;

  /** @throws UsageError where the sequence could not take back what was written in vain */
  constructor(
    readonly sequence: Sequence,
    readonly sampler: Sampler,
    readonly options: CascadeOptions,
  ) {
    checkTakesBack(sequence);
    const { route } = options;
    if (route.span - 1 > sequence.exactTokens) {
      throw new UsageError(
        `${route.text} may take ${route.span - 1} tokens back; this KV policy can take back ${sequence.exactTokens}`,
      );
    }
    this.routing = noRouting(route);
  }

  get speculation() {
    return this.#cloud?.speculation;
  }

  async first(logits: Activation): Promise<ChosenToken> {
    const { sequence, sampler, routing } = this;
    const { route, stopIds, openCloud, maxTokens = Infinity, signal } = this.options;
    const prompt = sequence.length;
    const written: number[] = [];
    const certainties: number[] = [];
    for (let row = logits; ; row = await sequence.run(Uint32Array.from(written.slice(-1)), { signal })) {
      const values = await readRow(sequence, row);
      certainties.push(route.certainty(values));
      written.push(sampler.pick(values, sequence.tokens));
      const ended = stopIds.includes(written[written.length - 1]) || sequence.length >= sequence.capacity;
      if (ended || written.length === Math.min(route.span, maxTokens)) break;
    }
    if (mean(certainties) < route.least) {
      sequence.rewind(prompt);
      this.#cloud = openCloud();
      routing.asked = 1;
      return this.#count(await this.#cloud.begin());
    }
    this.#given = prompt;
    this.#ahead = written;
    return this.#give();
  }

  async next(last: number): Promise<ChosenToken> {
    if (this.#cloud !== undefined) return this.#count(await this.#cloud.next());
    if (this.#ahead.length === 0) {
      const { sequence } = this;
      const values = await readRow(sequence, await sequence.run(Uint32Array.of(last), { signal: this.options.signal }));
      this.#ahead = [this.sampler.pick(values, this.sequence.tokens)];
    }
    return this.#give();
  }

  #give(): ChosenToken {
    this.routing.tokens++;
    this.#given++;
    return { id: this.#ahead.shift()! };
  }

  #count(token: ChosenToken): ChosenToken {
    this.routing.tokens++;
    this.routing.routed++;
    return token;
  }

  /** The sequence is left with tokens that were given. */
  [Symbol.dispose](): void {
    const { sequence } = this;
    if (this.#cloud !== undefined) this.#cloud[Symbol.dispose]();
    else if (this.#given > 0 && this.#given < sequence.length) {
      sequence.rewind(sequence.canRewind(this.#given) ? this.#given : 0);
    }
  }
}
