import { Random } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { ChosenToken, TokenSource } from "../chosenToken.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import type { Cloud } from "./cloud.js";
import type { Link } from "./link.js";
import { readRow } from "./readRow.js";
import type { Route } from "./route.js";
import { noRouting, type Routing } from "./routing.js";
import { CloudSession } from "./session.js";

/**
 * Tokens of a small model, but for those of which it is not sure: these a server chooses, which then runs what has come since it was last
 * asked (Co-LLM, arXiv 2403.03870; CITER, 2502.01976). The text follows neither model's law alone.
 */
export class RouteSource implements TokenSource {
  readonly worksAhead = false;
  readonly routing: Routing;
  readonly #ending = new AbortController();
  readonly #signal: AbortSignal;
  readonly #seed: number;
  #session: CloudSession | undefined;
  /** Tokens that the server has run. */
  #known = 0;

  constructor(
    readonly link: Link,
    readonly cloud: Cloud,
    readonly sequence: Sequence,
    readonly sampler: Sampler,
    readonly options: { route: Route & { least: number }; signal?: AbortSignal; model?: string },
  ) {
    const { route, signal } = options;
    this.routing = noRouting(route);
    this.#signal = signal === undefined ? this.#ending.signal : AbortSignal.any([signal, this.#ending.signal]);
    // What is drawn here and what is drawn there must not come from the same numbers.
    this.#seed = Math.floor(new Random(sampler.seed).uniform() * 2 ** 52);
  }

  async first(logits: Activation): Promise<ChosenToken> {
    return this.#choose(logits, performance.now());
  }

  async next(last: number): Promise<ChosenToken> {
    const sinceMs = performance.now();
    return this.#choose(await this.sequence.run(Uint32Array.of(last)), sinceMs);
  }

  async #choose(logits: Activation, sinceMs: number): Promise<ChosenToken> {
    const { sequence, sampler, routing } = this;
    const { vocabSize } = sequence.model.config;
    // Vocabularies of a family are filled up to different sizes: neither side may be given what only the other has.
    const row = await readRow(sequence, logits, Math.min(vocabSize, this.cloud.vocabSize));
    const { certainty, least } = this.options.route;
    // What the first token takes is the prompt.
    if (routing.tokens++ > 0) routing.edgeMs += performance.now() - sinceMs;
    if (certainty(row) >= least) return { id: sampler.pick(row, sequence.tokens) };
    routing.routed++;
    const asked = await this.#ask();
    return { id: asked < vocabSize ? asked : sampler.pick(row, sequence.tokens) };
  }

  async #ask(): Promise<number> {
    const { sequence, routing } = this;
    const sinceMs = performance.now();
    const text = [...sequence.tokens];
    let [next, serverMs] = [0, 0];
    if (this.#session === undefined) {
      const opened = await CloudSession.open(this.link, this.cloud, {
        prompt: text,
        // The newest token is never run.
        maxTokens: sequence.capacity - text.length + 1,
        sampler: this.sampler,
        seed: this.#seed,
        model: this.options.model,
        signal: this.#signal,
      });
      this.#session = opened.session;
      next = opened.next;
      // The server runs the prompt, once.
      routing.openMs = performance.now() - sinceMs;
    } else {
      ({ next, serverMs } = await this.#session.verify(text.slice(this.#known)));
      const elapsedMs = performance.now() - sinceMs;
      routing.asked++;
      routing.caughtUp += text.length - this.#known;
      routing.cloudMs += elapsedMs;
      routing.networkMs += Math.max(0, elapsedMs - serverMs);
    }
    this.#known = text.length;
    return next;
  }

  /** Ends the session. */
  [Symbol.dispose](): void {
    this.#ending.abort(new DOMException("the generation has ended", "AbortError"));
  }
}
