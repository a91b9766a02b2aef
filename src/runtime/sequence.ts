import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { Activation, Chosen } from "../kernels/index.js";
import type { ForwardOptions, Model, PassThresholds, SequencePart } from "../model/index.js";
import { checkGenerates, mostPassRows } from "../model/internal.js";
import { EarlyExit, type ExitCounts } from "./exits/earlyExit.js";
import type { Exits } from "./exits/index.js";
import { SequenceMemory } from "./kv/memory.js";
import type { MemoryOptions } from "./kv/memoryOptions.js";
import { keepsItsOwnCache } from "./kv/prunedModels.js";

/** How the tokens of a prompt are run. */
export interface RunOptions extends JobOptions {
  /** Tokens of one pass; default 128, fewer for layers so wide that their working memory would pass 256 MB. */
  chunk?: number;
  /** See `ForwardOptions.sparseFrom`: an absolute position. */
  sparseFrom?: number;
}

/** What the passes of a sequence run with, and what they leave. */
export interface SequenceOptions extends MemoryOptions {
  /** Those that its passes run with. Default: the model's own; "dense" is without any. */
  thresholds?: PassThresholds;
  /** What is added to the weights for its tokens; see `loadAdapter`. Default: the model's own. */
  adapters?: ForwardOptions["adapters"];
  /** Behind which layers tokens may leave that are run one by one; prompts run through all. Default: none. */
  exits?: Exits;
}

/** One text in a model: its tokens and their keys and values. Any number of them share a model, in any order. */
export class Sequence implements Disposable {
  readonly #memory: SequenceMemory;
  readonly #exit: EarlyExit | undefined;
  readonly #tokens: number[] = [];
  #held = false;
  #running = false;

  /** @param capacity the most tokens that can be run; see `Model.createCache` for errors. */
  constructor(
    readonly model: Model,
    readonly capacity: number,
    readonly options: SequenceOptions = {},
  ) {
    checkGenerates(model);
    this.#memory = new SequenceMemory(model, capacity, options);
    try {
      const { exits } = options;
      const leaves = exits !== undefined && exits.probed(model.config.layers).length > 0;
      if (leaves && options.pages !== undefined)
        throw new UsageError(`early exit (${exits.text}) does not go with pages`);
      this.#exit = leaves ? new EarlyExit(model, this.#memory, exits, this.#own) : undefined;
    } catch (error) {
      this.#memory[Symbol.dispose]();
      throw error;
    }
  }

  /** What every pass of it has. */
  get #own(): Pick<ForwardOptions, "thresholds" | "adapters"> {
    const { thresholds, adapters } = this.options;
    return { thresholds, adapters };
  }

  /** Tokens that were run, from position 0. */
  get tokens(): readonly number[] {
    return this.#tokens;
  }

  get length(): number {
    return this.#tokens.length;
  }

  /** Bytes of its keys and values; of pages those that it has, whoever else has them. */
  get byteLength(): number {
    return this.#memory.byteLength;
  }

  /** Those of `SequenceOptions.pages` that it has, in the order of its tokens; none where it has a cache of its own. */
  get pages(): readonly number[] {
    return this.#memory.pages?.list ?? [];
  }

  /** Takes pages for all that it may run, where its keys and values lie in pages. @throws UsageError without room */
  reserve(): void {
    this.#memory.pages?.reserve(this.capacity);
  }

  /** Gives back pages that no token has. */
  trim(): void {
    this.#memory.pages?.trim(this.length);
  }

  /** Its attention pattern as it is written, with the heads that MInference has found so far; undefined for the model's own. */
  get attention(): string | undefined {
    return this.#memory.attention;
  }

  /** By which rule its tokens may leave early; undefined where they never do. */
  get exits(): Exits | undefined {
    return this.#exit?.exits;
  }

  /** What early exit did so far; undefined without. */
  get exitCounts(): Readonly<ExitCounts> | undefined {
    return this.#exit?.counts;
  }

  /** Whether every token stays; else its KV policy throws some away. */
  get keepsAll(): boolean {
    return this.#memory.keepsAll;
  }

  /** Whether the device can choose a token, and the next one be enqueued before the choice is known here. */
  get worksAhead(): boolean {
    const { backend, tokensOnHost } = this.model;
    return !tokensOnHost && backend.choose !== undefined && this.keepsAll && this.exits === undefined;
  }

  /** Newest tokens of which it can take back any: Infinity where nothing becomes codes in groups. */
  get exactTokens(): number {
    return this.options.kv?.codes?.residual ?? Number.POSITIVE_INFINITY;
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
    const { chunk = mostPassRows(this.model.config.spec, 128), sparseFrom, signal } = options;
    if (!Number.isSafeInteger(chunk) || chunk < 1) throw new UsageError(`a chunk of ${chunk} tokens`);
    if (tokens.length === 0) throw new UsageError("no tokens to run");
    if (this.length + tokens.length > this.capacity) {
      throw new UsageError(`${this.length} + ${tokens.length} tokens in a sequence of ${this.capacity}`);
    }
    const stage = new Stage("prefill", tokens.length, "tokens", options.onProgress);
    const phase = tokens.length > 1 ? "prompt" : "decode";
    if (phase === "prompt") await this.#exit?.complete();
    for (let done = 0; ; ) {
      await breathe(signal);
      const part = tokens.subarray(done, done + Math.min(chunk, this.#memory.passRows(tokens.length - done)));
      done += part.length;
      const logits = done === tokens.length ? "last" : "none";
      const own = { ...this.#own, logits, sparseFrom } as const;
      const { start, options: forward } = this.#memory.next(this.length, part.length, own, phase);
      const result =
        phase === "decode" && this.#exit !== undefined
          ? await this.#exit.run(part, this.length)
          : await this.model.forward(part, this.#memory.cache, start, forward);
      await this.#memory.ran(this.length, part.length, tokens.length - done);
      for (const id of part) this.#tokens.push(id);
      stage.advance(part.length);
      if (result !== undefined) return result;
      await this.model.backend.flush();
    }
  }

  /** Tokens that the next pass may take of `left` that are to be run: all, but where a policy throws some away. */
  passRows(left: number): number {
    return this.#memory.passRows(left);
  }

  /** What `runTogether` runs of it: `ranTogether` says when it has. */
  partOf(tokens: Uint32Array, logits: ForwardOptions["logits"]): SequencePart {
    this.#checkRunsAll("with other sequences");
    if (this.#running) throw new UsageError("the sequence runs other tokens; wait for them");
    // Rows of which all logits are wanted are drafted ones.
    const phase = tokens.length > 1 && logits !== "all" ? "prompt" : "decode";
    const { start, options } = this.#memory.next(this.length, tokens.length, {}, phase);
    const { slot, places, sights, findSight } = options;
    const { adapters } = this.options;
    return { tokens, cache: this.#memory.cache, start, slot, places, sights, findSight, adapters, logits };
  }

  /** @param left tokens that are still to be run with them */
  async ranTogether(tokens: Uint32Array, left: number): Promise<void> {
    await this.#memory.ran(this.length, tokens.length, left);
    for (const id of tokens) this.#tokens.push(id);
  }

  /**
   * Takes over what `other` keeps of its first tokens, without running them: a text that begins like another one. Where both lie
   * in the same pages they share them, else it is a copy.
   * @throws UsageError where it has tokens already, or either of them does not keep everything as f32, or the model keeps each text in a cache of its own, or
   * leaves layers out, or they have different adapters, or there is no page left for tokens that fill none
   */
  copyFrom(other: Sequence, length: number): void {
    const plain = [this, other].every(
      ({ keepsAll, options, exits }) =>
        keepsAll && options.kv?.codes === undefined && exits === undefined && !keepsItsOwnCache(this.model),
    );
    const { pages } = this.#memory;
    const theirs = other.#memory.pages;
    const alike = other.model === this.model && sameAdapters(this.options, other.options);
    const apart = pages?.pages !== theirs?.pages;
    const fits = Number.isInteger(length) && length >= 0 && length <= Math.min(other.length, this.capacity);
    if (this.length > 0 || !fits || !plain || !alike || apart) {
      throw new UsageError(`${length} tokens of one sequence cannot be copied to the other`);
    }
    if (pages !== undefined) pages.begin(theirs!, length);
    else this.model.backend.copyKv(other.#memory.cache, this.#memory.cache, length);
    for (const id of other.#tokens.slice(0, length)) this.#tokens.push(id);
  }

  /**
   * Runs tokens in one pass. Only where nothing is thrown away.
   * @returns logits f32 [tokens.length, logitCols] after each, owned by the caller
   * @throws UsageError as `run`
   */
  async runRows(tokens: Uint32Array): Promise<Activation> {
    this.#checkRunsAll("in rows");
    const { start, options } = this.#memory.next(this.length, tokens.length, { ...this.#own, logits: "all" }, "decode");
    const logits = await this.model.forward(tokens, this.#memory.cache, start, options);
    await this.ranRows(tokens);
    return logits!;
  }

  /**
   * Runs some of the blocks in place on the residual stream of tokens that follow those it has; `ranRows` says which
   * once all have run. Only where nothing is thrown away.
   * @param after tokens between those that it has and the first row
   */
  async runBlocks(x: Activation, { from, to, after = 0 }: { from: number; to: number; after?: number }): Promise<void> {
    this.#checkRunsAll("block by block");
    const { start, options } = this.#memory.next(this.length + after, x.rows, this.#own, "decode");
    for (let layer = from; layer < to; layer++) {
      await this.model.block(layer, x, this.#memory.cache, start, options);
    }
  }

  /** The tokens whose blocks `runBlocks` ran. */
  async ranRows(tokens: Uint32Array): Promise<void> {
    await this.#memory.ran(this.length, tokens.length);
    for (const id of tokens) this.#tokens.push(id);
  }

  /**
   * Where nothing is thrown away, enqueues the token after those it has, which was chosen but is not known yet; `commit`
   * says which it was before anything else runs. Without that it was never there.
   * @returns as `run`
   */
  async runAhead(chosen: Chosen): Promise<Activation> {
    if (this.length >= this.capacity) throw new UsageError(`a sequence of ${this.capacity} tokens is full`);
    this.#checkRunsAll("ahead");
    if (!this.keepsAll) throw new UsageError("a token that is not known yet cannot throw others away");
    const { start, options } = this.#memory.next(this.length, 1, this.#own, "decode");
    return (await this.model.forward(chosen, this.#memory.cache, start, options))!;
  }

  /** The token that `runAhead` ran. */
  commit(id: number): void {
    this.#tokens.push(id);
  }

  /** Whether `rewind` can go there: once tokens were thrown away, only to where it is and to the beginning. */
  canRewind(length: number): boolean {
    return this.#memory.canRewind(this.length, length);
  }

  /** Forgets everything from position `length` on. @throws UsageError where it cannot */
  rewind(length: number): void {
    if (!Number.isSafeInteger(length) || length < 0 || length > this.length) {
      throw new UsageError(`rewind to ${length} in a sequence of ${this.length}`);
    }
    if (!this.canRewind(length)) {
      throw new UsageError(`rewind to ${length}, whose neighbours were thrown away; rewind to 0 and run it again`);
    }
    this.#memory.rewind(length);
    this.#exit?.rewind(length);
    this.#tokens.length = length;
  }

  /**
   * Rewinds to what it has in common with `prompt`, at least one token short of it, so that a chat need not run its
   * history again; to the beginning where tokens were thrown away since.
   * @returns the tokens of `prompt` that are still to be run.
   */
  reuse(prompt: Uint32Array): Uint32Array {
    const most = Math.min(this.length, prompt.length - 1);
    let common = 0;
    while (common < most && this.#tokens[common] === prompt[common]) common++;
    const kept = this.canRewind(common) ? common : 0;
    this.rewind(kept);
    return prompt.subarray(kept);
  }

  #checkRunsAll(how: string): void {
    if (this.exits === undefined) return;
    throw new UsageError(
      `tokens of a sequence with early exit (${this.exits.text}) are run one by one, and cannot be run ${how}`,
    );
  }

  [Symbol.dispose](): void {
    this.#exit?.[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
  }
}

const sameAdapters = ({ adapters: a = [] }: SequenceOptions, { adapters: b = [] }: SequenceOptions): boolean =>
  a.length === b.length && a.every((adapter, i) => adapter === b[i]);
