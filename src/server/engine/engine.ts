import { breathe, UsageError } from "../../core/index.js";
import type { Model } from "../../model/index.js";
import { mostPassRows, rowBytes } from "../../model/internal.js";
import { runTogether } from "../../runtime/index.js";
import type { Tokenizer } from "../../text/index.js";
import { chooseTokens } from "./choose.js";
import { commonLength, commonTokens, copies, noteExact } from "./heldSequence.js";
import { Job } from "./job.js";
import { JoinedPasses } from "./joinedPasses.js";
import { SequenceMemory, type SharedRoom } from "./memory.js";
import { type PlannedPass, planStep } from "./plan.js";
import type { GenerationEvent, GenerationRequest } from "./request.js";

/** Limits of an engine. */
export interface EngineOptions {
  /** Sequences that are run at the same time. */
  maxSequences: number;
  /** Requests that wait at most; more are refused. */
  maxQueue: number;
  /** Bytes of keys and values. */
  kvBytes: number;
  /** Most tokens of a text, prompt and answer. */
  context: number;
  /** Tokens of prompts in one pass; more of them delay those that generate. */
  prefillChunk: number;
  /** See `PassLimits`. */
  sparseAlone: number;
}

/** What an engine tells of its work. */
export interface EngineObserver {
  /** One pass. @param tokens that it ran @param sequences of how many */
  onPass(pass: { tokens: number; sequences: number; elapsedMs: number }): void;
  onCounters(counters: { weightBytesRead: number; kvBytesRead: number; inputs: number; inputsSkipped: number }): void;
  onQueued(waitedMs: number): void;
  onPrompt(tokens: number, cached: number): void;
  onToken(sinceMs: number, first: boolean): void;
  onEnd(how: "finished" | "aborted" | "failed"): void;
}

/** The queue has no room; the client may try again. */
export class QueueFullError extends Error {
  constructor(readonly waiting: number) {
    super(`${waiting} requests wait already`);
  }
}

/** How often it is looked whether there is room again, where no text of ours will end. */
const roomRetryMs = 10;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Prompts that have at least so many tokens in common with one that is being run wait for it. */
const worthWaiting = 32;

/**
 * Runs many requests on one model at once: in every step each that generates gets a token, and a part of the prompts that wait
 * is run in the same pass (continuous batching).
 */
export class Engine implements Disposable {
  readonly memory: SequenceMemory;
  /** Runs what others have proposed. */
  readonly verified: JoinedPasses;
  #waiting: Job[] = [];
  #active: Job[] = [];
  #running: Promise<void> | undefined;
  readonly #closing = new AbortController();

  constructor(
    readonly model: Model,
    readonly tokenizer: Tokenizer,
    readonly options: EngineOptions,
    readonly observer: EngineObserver,
    shared?: SharedRoom,
  ) {
    this.memory = new SequenceMemory(model, options.kvBytes, options.context, shared);
    this.verified = new JoinedPasses(model, this.#limits().promptRows, (pass) => observer.onPass(pass));
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get active(): number {
    return this.#active.length;
  }

  get busy(): boolean {
    return this.#waiting.length + this.#active.length > 0;
  }

  /**
   * Queues requests, all or none.
   * @returns for each what happens to it; stopping to read it aborts it
   * @throws QueueFullError, ProblemsError for sampling options out of range
   */
  submit(requests: readonly GenerationRequest[]): AsyncIterableIterator<GenerationEvent>[] {
    this.#closing.signal.throwIfAborted();
    const most = this.options.maxQueue + this.options.maxSequences;
    if (requests.length > most) {
      throw new UsageError(`the request asks for ${requests.length} texts at once; this server takes ${most}`);
    }
    const free = Math.max(0, this.options.maxSequences - this.#active.length);
    if (this.#waiting.length + requests.length > this.options.maxQueue + free)
      throw new QueueFullError(this.#waiting.length);
    const jobs = requests.map((request) => new Job(request, this.tokenizer));
    this.#waiting.push(...jobs);
    this.#running ??= this.#loop().finally(() => {
      this.#running = undefined;
    });
    return jobs.map((job) => job.events);
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #loop(): Promise<void> {
    // What is submitted together is begun together.
    await breathe(undefined);
    while (this.busy) {
      this.#forgetAborted();
      this.#admit();
      for (const pass of planStep(this.#active, this.#limits())) await this.#run(pass);
      this.#active = this.#active.filter((job) => !this.#ended(job));
      await breathe(undefined);
      // Only what is verified for others (`VerifySession`) takes room then, and no step of ours ends it.
      if (this.#active.length === 0 && this.#waiting.length > 0) await pause(roomRetryMs);
    }
  }

  /** Bytes of working memory that its passes may come to: of all rows, and of their logits. */
  get passBytes(): number {
    const { spec } = this.model.config;
    const rows = this.#limits().promptRows + this.options.maxSequences;
    return rows * (rowBytes(spec) + this.model.logitCols * Float32Array.BYTES_PER_ELEMENT);
  }

  #limits() {
    const { prefillChunk, sparseAlone } = this.options;
    return { promptRows: mostPassRows(this.model.config.spec, prefillChunk), sparseAlone };
  }

  #forgetAborted(): void {
    const stays = (job: Job): boolean => {
      const closing = this.#closing.signal;
      if (!job.aborted && !closing.aborted) return true;
      job.fail(closing.reason ?? job.request.signal.reason ?? new DOMException("nobody reads it", "AbortError"));
      if (job.held !== undefined) this.memory.release(job.held);
      this.observer.onEnd("aborted");
      return false;
    };
    this.#waiting = this.#waiting.filter(stays);
    this.#active = this.#active.filter(stays);
  }

  #admit(): void {
    const stay: Job[] = [];
    let full = false;
    for (const job of this.#waiting) {
      if (full || this.#active.length >= this.options.maxSequences || this.#awaitsBeginning(job)) {
        stay.push(job);
        continue;
      }
      const { prompt, maxTokens, variant, promptLogprobs } = job.request;
      const capacity = Math.min(this.options.context, Math.max(prompt.length, prompt.length + maxTokens - 1));
      try {
        job.held = this.memory.acquire(prompt, capacity, variant, !promptLogprobs);
      } catch (error) {
        job.fail(error);
        this.observer.onEnd("failed");
        continue;
      }
      if (job.held === undefined) {
        // In order: a long text is not overtaken for ever.
        full = true;
        stay.push(job);
        continue;
      }
      job.cachedTokens = job.held.sequence.length;
      this.#active.push(job);
      this.observer.onQueued(performance.now() - job.queuedMs);
    }
    this.#waiting = stay;
  }

  /** Whether most of its prompt is just being run for another: it then takes that over instead of running it as well. */
  #awaitsBeginning({ request: { prompt, variant, promptLogprobs } }: Job): boolean {
    if (promptLogprobs || !copies({ variant }, this.model)) return false;
    return this.#active.some(({ held, request, inPrompt }) => {
      if (!inPrompt || held!.variant.key !== variant.key) return false;
      const most = Math.min(prompt.length - 1, request.prompt.length);
      return commonLength(prompt, request.prompt, most) - commonTokens(prompt, held!) >= worthWaiting;
    });
  }

  async #run({ jobs, turns }: PlannedPass): Promise<void> {
    const { backend } = this.model;
    const startMs = performance.now();
    try {
      const { logits, firstRows } = await this.memory.duringPass(() => runTogether(turns));
      for (const { held, sparseFrom } of jobs) noteExact(held!, sparseFrom);
      try {
        const rows = jobs.map((job, j) => ({ job, turn: turns[j], firstRow: firstRows[j] }));
        if (logits === undefined) await backend.flush();
        else
          await chooseTokens(
            this.model,
            logits,
            rows.filter(({ turn }) => turn.logits !== "none"),
          );
      } finally {
        if (logits !== undefined) backend.release(logits);
      }
    } catch (error) {
      // What lies in the caches is not certain any more.
      for (const { held } of jobs) held!.exact = 0;
      for (const job of jobs) if (!job.done) job.fail(error);
    }
    const nowMs = performance.now();
    for (const job of jobs) this.#observe(job, nowMs);
    const tokens = turns.reduce((sum, turn) => sum + turn.tokens.length, 0);
    this.observer.onPass({ tokens, sequences: jobs.length, elapsedMs: nowMs - startMs });
    this.observer.onCounters(backend.takeCounters());
  }

  #observe(job: Job, nowMs: number): void {
    const count = job.generated.length;
    if (count === 0 || job.failed) return;
    if (count === 1) this.observer.onPrompt(job.request.prompt.length, job.cachedTokens);
    this.observer.onToken(nowMs - (job.lastTokenMs ?? job.queuedMs), count === 1);
    job.lastTokenMs = nowMs;
  }

  #ended(job: Job): boolean {
    if (!job.done) return false;
    this.memory.release(job.held!);
    this.observer.onEnd(job.failed ? "failed" : "finished");
    return true;
  }

  /** Ends everything that waits or runs, within one step: `idle` resolves then. What comes later is refused. */
  abort(): void {
    this.#closing.abort(new DOMException("the server closes", "AbortError"));
  }

  /** Wait for `idle` first. */
  [Symbol.dispose](): void {
    this.abort();
    this.memory[Symbol.dispose]();
  }
}
