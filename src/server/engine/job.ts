import { Sampler, sparseFromPosition, TextStream, type TogetherTurn } from "../../runtime/index.js";
import type { Tokenizer } from "../../text/index.js";
import { Channel } from "./channel.js";
import type { HeldSequence } from "./heldSequence.js";
import type { FinishReason, GenerationEvent, GenerationRequest, TokenLogprob } from "./request.js";

/** A request under way: what has run of it, and what has come out. */
export class Job {
  readonly events: Channel<GenerationEvent>;
  readonly sampler: Sampler;
  readonly queuedMs = performance.now();
  /** Where its keys and values lie, once there was room. */
  held: HeldSequence | undefined;
  /** Tokens generated, and how often each. */
  readonly generated: number[] = [];
  readonly counts = new Map<number, number>();
  cachedTokens = 0;
  lastTokenMs: number | undefined;
  readonly promptLogprobs: TokenLogprob[] = [];
  /** First position of the prompt that thresholds apply to. */
  readonly sparseFrom: number;
  readonly #text: TextStream;
  readonly #aborted = new AbortController();
  #done = false;
  #failed = false;

  /** @throws ProblemsError for sampling options out of range */
  constructor(
    readonly request: GenerationRequest,
    tokenizer: Tokenizer,
  ) {
    const { prompt, stopStrings, continuesPrompt, variant } = request;
    this.sampler = new Sampler(request.sampling);
    this.#text = new TextStream(tokenizer, stopStrings, continuesPrompt ? prompt : []);
    this.sparseFrom = sparseFromPosition(variant.prefill, prompt.length);
    this.events = new Channel(() => this.#aborted.abort());
  }

  get done(): boolean {
    return this.#done;
  }

  get failed(): boolean {
    return this.#failed;
  }

  /** Whether nobody waits for it any more. */
  get aborted(): boolean {
    return this.#aborted.signal.aborted || this.request.signal.aborted;
  }

  get inPrompt(): boolean {
    return this.held === undefined || this.held.sequence.length < this.request.prompt.length;
  }

  /** Whether the largest logit alone decides. */
  get plain(): boolean {
    const { bias, presencePenalty, frequencyPenalty, logprobs, promptLogprobs, constraint } = this.request;
    const adjusted = bias.size > 0 || presencePenalty !== 0 || frequencyPenalty !== 0 || constraint !== undefined;
    return this.sampler.greedy && !adjusted && logprobs === undefined && !promptLogprobs;
  }

  /** What it runs next, with at most `most` tokens of its prompt. */
  turn(most: number): TogetherTurn {
    const { sequence } = this.held!;
    const { prompt, promptLogprobs } = this.request;
    const { length } = sequence;
    if (length >= prompt.length) {
      return { sequence, tokens: Uint32Array.of(this.generated[length - prompt.length]), logits: "last" };
    }
    // A turn is sparse as a whole or dense as a whole.
    const dense = length < this.sparseFrom;
    const end = dense ? Math.min(this.sparseFrom, prompt.length) : prompt.length;
    const count = Math.min(most, sequence.passRows(prompt.length - length), end - length);
    const left = prompt.length - length - count;
    const logits = promptLogprobs ? "all" : left === 0 ? "last" : "none";
    return { sequence, tokens: prompt.subarray(length, length + count), left, dense, logits };
  }

  /** The prompt has run. */
  promptRan(): void {
    const { prompt, maxTokens, promptLogprobs } = this.request;
    const finish = maxTokens === 0 ? "length" : undefined;
    this.events.put({
      kind: "prompt",
      promptTokens: prompt.length,
      cachedTokens: this.cachedTokens,
      ...(promptLogprobs && { logprobs: this.promptLogprobs }),
      ...(finish && { finish }),
    });
    if (finish) this.#end();
  }

  /** A token was chosen. */
  push(id: number, logprob: TokenLogprob | undefined): void {
    const { stopIds, maxTokens, prompt, constraint } = this.request;
    this.generated.push(id);
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
    constraint?.accept(id);
    let text = this.#text.push(id);
    let finish: FinishReason | undefined;
    if (stopIds.includes(id) || this.#text.stopped) finish = "stop";
    else if (this.generated.length >= maxTokens) finish = "length";
    else if (prompt.length + this.generated.length > this.held!.sequence.capacity) finish = "length";
    if (finish !== undefined) text += this.#text.flush();
    this.events.put({ kind: "token", id, text, ...(logprob && { logprob }), ...(finish && { finish }) });
    if (finish !== undefined) this.#end();
  }

  fail(error: unknown): void {
    this.#done = true;
    this.#failed = true;
    this.request.constraint?.[Symbol.dispose]();
    this.events.fail(error);
  }

  #end(): void {
    this.#done = true;
    this.request.constraint?.[Symbol.dispose]();
    this.events.end();
  }
}
