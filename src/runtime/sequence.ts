import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { Activation, Chosen, KvCache } from "../kernels/index.js";
import type { ActivationThresholds, Model } from "../model/index.js";

/** How the tokens of a prompt are run. */
export interface RunOptions extends JobOptions {
  /** Tokens of one pass; default 128. */
  chunk?: number;
  /** See `ForwardOptions.sparseFrom`: an absolute position. */
  sparseFrom?: number;
}

/** What the passes of a sequence run with. */
export interface SequenceOptions {
  /** Those that its passes run with. Default: the model's own; "dense" is without any. */
  thresholds?: ActivationThresholds | "dense";
}

/** One text in a model: its tokens and their keys and values. Any number of them share a model, in any order. */
export class Sequence implements Disposable {
  readonly #cache: KvCache;
  readonly #tokens: number[] = [];
  #held = false;
  #running = false;

  /** @param capacity the most tokens it can hold; see `Model.createCache` for errors. */
  constructor(
    readonly model: Model,
    readonly capacity: number,
    readonly options: SequenceOptions = {},
  ) {
    this.#cache = model.createCache(capacity);
  }

  /** Tokens that were run, from position 0. */
  get tokens(): readonly number[] {
    return this.#tokens;
  }

  get length(): number {
    return this.#tokens.length;
  }

  /** Bytes of its keys and values. */
  get byteLength(): number {
    return this.#cache.byteLength;
  }

  /**
   * Takes the sequence for one generation; disposing of what is returned gives it back.
   * @throws UsageError while another has it
   */
  hold(): Disposable {
    if (this.#held) {
      throw new UsageError(
        "the sequence is in use by another generation; wait until that has ended, or give each one a sequence of its own",
      );
    }
    this.#held = true;
    return {
      [Symbol.dispose]: () => {
        this.#held = false;
      },
    };
  }

  /**
   * Runs tokens after those it has, in chunks, with a turn of the event loop and a look at `signal` between them. What ran
   * before an abort stays.
   * @returns logits f32 [1, logitCols] after the last token, owned by the caller.
   * @throws UsageError for no tokens or more than the capacity holds, or while other tokens run.
   */
  async run(tokens: Uint32Array, options: RunOptions = {}): Promise<Activation> {
    if (this.#running) throw new UsageError("the sequence runs other tokens; wait for them");
    this.#running = true;
    try {
      return await this.#run(tokens, options);
    } finally {
      this.#running = false;
    }
  }

  async #run(tokens: Uint32Array, options: RunOptions): Promise<Activation> {
    const { chunk = 128, sparseFrom, signal } = options;
    if (!Number.isSafeInteger(chunk) || chunk < 1) throw new UsageError(`a chunk of ${chunk} tokens`);
    if (tokens.length === 0) throw new UsageError("no tokens to run");
    if (this.length + tokens.length > this.capacity) {
      throw new UsageError(`${this.length} + ${tokens.length} tokens in a sequence of ${this.capacity}`);
    }
    const stage = new Stage("prefill", tokens.length, "tokens", options.onProgress);
    for (let done = 0; ; ) {
      await breathe(signal);
      const part = tokens.subarray(done, done + chunk);
      done += part.length;
      const logits = done === tokens.length ? "last" : "none";
      const result = await this.model.forward(part, this.#cache, this.length, {
        logits,
        sparseFrom,
        thresholds: this.options.thresholds,
      });
      for (const id of part) this.#tokens.push(id);
      stage.advance(part.length);
      if (result !== undefined) return result;
      await this.model.backend.flush();
    }
  }

  /**
   * Enqueues the token after those it has, which was chosen but is not known yet; `commit` says which it was before anything
   * else runs. Without that it was never there.
   * @returns as `run`
   */
  async runAhead(chosen: Chosen): Promise<Activation> {
    if (this.length >= this.capacity) throw new UsageError(`a sequence of ${this.capacity} tokens is full`);
    const { thresholds } = this.options;
    return (await this.model.forward(chosen, this.#cache, this.length, { thresholds }))!;
  }

  /** The token that `runAhead` ran. */
  commit(id: number): void {
    this.#tokens.push(id);
  }

  /** Forgets everything from position `length` on. */
  rewind(length: number): void {
    if (!Number.isSafeInteger(length) || length < 0 || length > this.length) {
      throw new UsageError(`rewind to ${length} in a sequence of ${this.length}`);
    }
    this.#tokens.length = length;
  }

  /**
   * Rewinds to what it has in common with `prompt`, at least one token short of it, so that a chat need not run its
   * history again.
   * @returns the tokens of `prompt` that are still to be run.
   */
  reuse(prompt: Uint32Array): Uint32Array {
    const most = Math.min(this.length, prompt.length - 1);
    let common = 0;
    while (common < most && this.#tokens[common] === prompt[common]) common++;
    this.rewind(common);
    return prompt.subarray(common);
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }
}
