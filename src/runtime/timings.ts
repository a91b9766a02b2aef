/** Wall-clock figures of one generation. Time the consumer spends between tokens is left out. */
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

  constructor(readonly promptTokens: number) {}

  async prefill<T>(work: () => Promise<T>): Promise<T> {
    const startMs = performance.now();
    const result = await work();
    this.#prefillMs = performance.now() - startMs;
    return result;
  }

  async step<T>(work: () => Promise<T>): Promise<T> {
    const startMs = performance.now();
    const result = await work();
    const elapsedMs = performance.now() - startMs;
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
