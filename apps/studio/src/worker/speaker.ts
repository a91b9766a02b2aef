import type { BackendCounters } from "rarefy/kernels";
import type { Model, PassThresholds } from "rarefy/model";
import { type GenerateOptions, type GenerationStep, generate, Sequence } from "rarefy/runtime";
import { type ChatMessage, encodeChat } from "rarefy/text";
import type { Answer, Counts, Picture, Skipping, WrittenToken } from "../protocol.js";
import type { Session } from "./session.js";
import { watched } from "./watch.js";

/** Tokens that a text has room for at first; it grows. */
const leastCapacity = 256;

/** A variant that writes. It remembers its text, so that of a chat only what is new is run. */
export class Speaker implements Disposable {
  /** Who is shown what the thresholds skip. */
  onPicture: ((picture: Picture) => void) | undefined;
  readonly #model: Model;
  #sequence: Sequence | undefined;

  constructor(
    readonly session: Session,
    readonly skipping: Skipping,
    readonly thresholds: PassThresholds,
  ) {
    this.#model = watched(session.opened.model, () => this.onPicture);
  }

  /** The tokens of a text, or of a chat in the model's template: its oldest turns are forgotten until there is room for an answer. */
  #tokens(prompt: readonly ChatMessage[] | string, maxTokens: number): Uint32Array {
    const { tokenizer, template, description } = this.session;
    if (typeof prompt === "string") return Uint32Array.from(tokenizer.encode(prompt));
    if (template === undefined) throw new Error(`${description.location} has no chat template`);
    const { maxPositions } = description;
    const room = maxPositions - Math.min(maxTokens, Math.floor(maxPositions / 2));
    const system = prompt.filter(({ role }) => role === "system");
    const turns = prompt.filter(({ role }) => role !== "system");
    for (;;) {
      const tokens = encodeChat(tokenizer, template, [...system, ...turns]);
      if (tokens.length <= room || turns.length < 3) return tokens;
      turns.splice(0, 2);
    }
  }

  begin(
    place: number,
    prompt: readonly ChatMessage[] | string,
    options: GenerateOptions & { maxTokens: number },
  ): Writer {
    const tokens = this.#tokens(prompt, options.maxTokens);
    const { tokenizer, opened } = this.session;
    const sequence = this.#roomFor(tokens.length + options.maxTokens);
    const continuesPrompt = typeof prompt === "string";
    // Not ahead: each is timed in its own turns, in which the GPU is to work for it alone.
    const own = { ...options, tokenizer, sequence, prefill: opened.prefill, continuesPrompt, ahead: false };
    return new Writer(place, sequence, generate(this.#model, tokens, own));
  }

  #roomFor(tokens: number): Sequence {
    const { maxPositions } = this.#model.config;
    const wanted = Math.min(tokens, maxPositions);
    if (this.#sequence !== undefined && this.#sequence.capacity >= wanted) return this.#sequence;
    this.#sequence?.[Symbol.dispose]();
    this.#sequence = undefined;
    const capacity = Math.min(maxPositions, Math.max(leastCapacity, 2 * wanted));
    // Dense is without anything that the model's rarefy.json adds.
    const { attention, kv, exits } =
      this.skipping === "dense" ? ({} as Partial<Session["opened"]>) : this.session.opened;
    this.#sequence = new Sequence(this.#model, capacity, { thresholds: this.thresholds, attention, kv, exits });
    return this.#sequence;
  }

  [Symbol.dispose](): void {
    this.#sequence?.[Symbol.dispose]();
  }
}

const counted = ["weightBytesRead", "inputs", "inputsSkipped"] as const;

/** One answer on its way, counted and timed by itself. */
export class Writer {
  finish: Answer["finish"] | undefined;
  readonly #tokenIds: number[] = [];
  #text = "";
  #timedMs = 0;
  #timedTokens = 0;
  readonly #counted = { weightBytesRead: 0, inputs: 0, inputsSkipped: 0 } satisfies Partial<BackendCounters>;
  readonly #exitsBefore: { tokens: number; exitLayers: number };

  constructor(
    readonly place: number,
    readonly sequence: Sequence,
    readonly steps: AsyncGenerator<GenerationStep, void>,
  ) {
    this.#exitsBefore = { tokens: 0, exitLayers: 0, ...sequence.exitCounts };
  }

  /** @param untimed whether something else took time in this step, asked after it */
  async next(untimed: () => boolean): Promise<WrittenToken | undefined> {
    const { backend } = this.sequence.model;
    backend.takeCounters();
    const beganMs = performance.now();
    const { value: step } = await this.steps.next();
    const elapsedMs = performance.now() - beganMs;
    if (step === undefined) return undefined;
    const { id, text, finish } = step;
    this.finish = finish?.reason;
    this.#tokenIds.push(id);
    this.#text += text;
    // The first token is the prompt's; the second warms caches and compilers.
    if (this.#tokenIds.length > 2 && !untimed()) {
      this.#timedMs += elapsedMs;
      this.#timedTokens++;
    }
    if (this.#tokenIds.length > 1) {
      const counters = backend.takeCounters();
      for (const name of counted) this.#counted[name] += counters[name];
    }
    return { type: "token", variant: this.place, id, text, ...this.#counts() };
  }

  #counts(): Counts {
    const { weightBytesRead, inputs, inputsSkipped } = this.#counted;
    const decoded = this.#tokenIds.length - 1;
    const { exitCounts } = this.sequence;
    const left = (exitCounts?.tokens ?? 0) - this.#exitsBefore.tokens;
    return {
      ...(this.#timedTokens > 0 && { tokensPerSecond: (1000 * this.#timedTokens) / this.#timedMs }),
      ...(decoded > 0 && { bytesPerToken: weightBytesRead / decoded }),
      skipped: inputs === 0 ? 0 : inputsSkipped / inputs,
      ...(left > 0 && { meanExitLayer: (exitCounts!.exitLayers - this.#exitsBefore.exitLayers) / left }),
    };
  }

  result(): Answer {
    return { tokenIds: this.#tokenIds, text: this.#text, finish: this.finish ?? "stopped", ...this.#counts() };
  }

  /** Also ends a text that is not finished. */
  async end(): Promise<void> {
    await this.steps.return();
  }
}
