/**
 * Wall-clock figures of one generation. Time the consumer spends between tokens is left out, unless the next token is under
 * way in it.
 */
export interface GenerationTimings {
  /** Prompt tokens that were run, without those a sequence had already. */
  promptTokens: number;
  /** Until the first token was chosen. */
  prefillMs: number;
  prefillTokensPerSecond: number;
  /** Passes over one token: one less than the tokens generated. */
  decodeSteps: number;
  /** First of those, in which caches and compilers warm up; undefined without any. */
  firstStepMs: number | undefined;
  /** All of them. */
  decodeMs: number;
  /** Of the steps after the first; undefined without any. */
  decodeTokensPerSecond: number | undefined;
}

export class GenerationClock {
  #prefillMs = 0;
  #firstStepMs: number | undefined;
  #decodeMs = 0;
  #decodeSteps = 0;
  #endMs = 0;

  /** @param worksAhead whether a step begins when the one before it ends */
  constructor(
    readonly promptTokens: number,
    readonly worksAhead = false,
  ) {}

  async prefill<T>(work: () => Promise<T>): Promise<T> {
    const startMs = performance.now();
    const result = await work();
    this.#endMs = performance.now();
    this.#prefillMs = this.#endMs - startMs;
    return result;
  }

  async step<T>(work: () => Promise<T>): Promise<T> {
    const startMs = this.worksAhead ? this.#endMs : performance.now();
    const result = await work();
    this.#endMs = performance.now();
    const elapsedMs = this.#endMs - startMs;
    this.#firstStepMs ??= elapsedMs;
    this.#decodeMs += elapsedMs;
    this.#decodeSteps++;
    return result;
  }

  timings(): GenerationTimings {
    const { promptTokens } = this;
    const laterMs = this.#decodeMs - (this.#firstStepMs ?? 0);
    return {
      promptTokens,
      prefillMs: this.#prefillMs,
      prefillTokensPerSecond: (1000 * promptTokens) / this.#prefillMs,
      decodeSteps: this.#decodeSteps,
      firstStepMs: this.#firstStepMs,
      decodeMs: this.#decodeMs,
      decodeTokensPerSecond: this.#decodeSteps > 1 ? (1000 * (this.#decodeSteps - 1)) / laterMs : undefined,
    };
  }
}
