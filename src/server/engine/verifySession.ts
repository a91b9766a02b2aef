import { NonFiniteError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import { type Proposal, type Sampler, sparseFromPosition } from "../../runtime/index.js";
import { checkTakesBack, decide } from "../../runtime/internal.js";
import type { Engine } from "./engine.js";
import { type HeldSequence, noteExact } from "./heldSequence.js";
import type { Variant } from "./request.js";

/** What a session begins with. */
export interface SessionRequest {
  /** Unguessable. */
  readonly id: string;
  /** The model as its batches are to name it. */
  readonly modelId: string;
  readonly prompt: Uint32Array;
  /** Most tokens that are run. */
  readonly capacity: number;
  readonly variant: Variant;
  readonly sampler: Sampler;
}

/** A text whose tokens somebody else proposes; its keys and values lie in the engine's memory until it is disposed of. */
export class VerifySession implements Disposable {
  readonly #ending = new AbortController();
  readonly #sparseFrom: number;
  #busy = false;

  private constructor(
    readonly engine: Engine,
    readonly request: SessionRequest,
    readonly held: HeldSequence,
    readonly onFree: (session: VerifySession) => void,
  ) {
    const { variant, prompt } = request;
    this.#sparseFrom = sparseFromPosition(variant.prefill, prompt.length);
  }

  /**
   * @returns undefined while other texts take the room
   * @throws UsageError where its cache throws tokens away, or is more than there is room for at all
   */
  static open(
    engine: Engine,
    request: SessionRequest,
    onFree: (session: VerifySession) => void,
  ): VerifySession | undefined {
    const held = engine.memory.acquire(request.prompt, request.capacity, request.variant, true);
    if (held === undefined) return undefined;
    try {
      checkTakesBack(held.sequence);
    } catch (error) {
      engine.memory.release(held);
      throw error;
    }
    return new VerifySession(engine, request, held, onFree);
  }

  /** Aborted when it ends. */
  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  get busy(): boolean {
    return this.#busy;
  }

  get ended(): boolean {
    return this.#ending.signal.aborted;
  }

  /** Tokens that may still be run. */
  get room(): number {
    return this.request.capacity - this.held.sequence.length;
  }

  /** Runs the prompt. @returns the first token of the answer */
  async first(): Promise<number> {
    const { prompt } = this.request;
    const { sequence } = this.held;
    const rest = prompt.subarray(sequence.length);
    this.engine.observer.onPrompt(prompt.length, prompt.length - rest.length);
    const { next } = await this.#pass(rest.length, async () => {
      const logits = await this.#run(rest);
      return this.#decide(logits, { ids: [] }, sequence.tokens);
    });
    return next;
  }

  /**
   * @param given tokens that follow, whatever the model would have chosen; at least one
   * @param proposal tokens proposed after them
   */
  async verify(given: readonly number[], proposal: Pick<Proposal, "ids" | "laws">) {
    const { sequence } = this.held;
    const begin = sequence.length + given.length;
    // The pass that others share is told of by who joins it.
    return this.#pass(0, async () => {
      const before = Uint32Array.from(given.slice(0, -1));
      if (before.length > 0) {
        const startMs = performance.now();
        sequence.model.backend.release(await this.#run(before));
        const elapsedMs = performance.now() - startMs;
        this.engine.observer.onPass({ tokens: before.length, sequences: 1, elapsedMs });
      }
      const rows = Uint32Array.from([...given.slice(-1), ...proposal.ids]);
      const logits = await this.engine.verified.run(sequence, rows, this.signal);
      const result = await this.#decide(logits, proposal, sequence.tokens.slice(0, begin));
      sequence.rewind(begin + result.accepted);
      return result;
    });
  }

  #run(tokens: Uint32Array): Promise<Activation> {
    const { engine, held, signal } = this;
    return held.sequence.run(tokens, { chunk: engine.options.prefillChunk, sparseFrom: this.#sparseFrom, signal });
  }

  async #decide(logits: Activation, proposal: Pick<Proposal, "ids" | "laws">, occurred: readonly number[]) {
    const explain = async () => new NonFiniteError("the model gave numbers that are not finite for this text");
    const options = { logprobs: false, explain };
    const { accepted, decided } = await decide(
      this.engine.model,
      logits,
      proposal,
      occurred,
      this.request.sampler,
      options,
    );
    return { accepted, next: decided[accepted].id };
  }

  /** One at a time; what lies in the caches after one that failed is not certain. */
  async #pass<T>(tokens: number, work: () => Promise<T>): Promise<T & { elapsedMs: number }> {
    const { engine, held } = this;
    const startMs = performance.now();
    this.#busy = true;
    try {
      const result = await engine.memory.duringPass(work);
      noteExact(held, this.#sparseFrom);
      const elapsedMs = performance.now() - startMs;
      if (tokens > 0) engine.observer.onPass({ tokens, sequences: 1, elapsedMs });
      engine.observer.onCounters(engine.model.backend.takeCounters());
      return { ...result, elapsedMs };
    } catch (error) {
      held.exact = 0;
      this.#ending.abort(error);
      throw error;
    } finally {
      this.#busy = false;
      if (this.ended) this.#free();
    }
  }

  #free(): void {
    this.engine.memory.release(this.held);
    this.onFree(this);
  }

  /** Gives its keys and values back, after the pass that is under way. */
  [Symbol.dispose](): void {
    if (this.ended) return;
    this.#ending.abort(new DOMException("the session has ended", "AbortError"));
    if (!this.#busy) this.#free();
  }
}

/** All sessions of a server. */
export class VerifySessions {
  readonly #all = new Map<string, VerifySession>();

  /** Those of one engine. */
  count(engine: Engine): number {
    return [...this.#all.values()].filter((session) => session.engine === engine).length;
  }

  /** As `VerifySession.open`. */
  open(engine: Engine, request: SessionRequest): VerifySession | undefined {
    const session = VerifySession.open(engine, request, ({ request: { id } }) => this.#all.delete(id));
    if (session !== undefined) this.#all.set(request.id, session);
    return session;
  }

  /** One that has not ended. */
  find(id: string): VerifySession | undefined {
    const found = this.#all.get(id);
    return found?.ended ? undefined : found;
  }

  /** Ends all. */
  end(): void {
    for (const session of [...this.#all.values()]) session[Symbol.dispose]();
  }

  /** Resolves when none is there any more; after `end` that takes one pass. */
  async idle(): Promise<void> {
    while (this.#all.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
