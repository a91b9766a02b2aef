import { breathe, type JobOptions, Stage, UsageError } from "../../core/index.js";
import type { Tokenizer } from "../../text/index.js";
import type { Batch } from "../objective.js";
import { permutation, randomFor } from "../seeds.js";

/** What stands between two documents of a training text, on a line of its own. */
export const documentSeparator = "<|endoftext|>";

/**
 * Tokens of a training text, document by document, the separator kept as the token it is where the tokenizer has it.
 * @param maxTokens stop once there are this many
 */
export async function tokenizeDocuments(
  tokenizer: Tokenizer,
  text: string,
  { maxTokens = Number.POSITIVE_INFINITY, signal, onProgress }: JobOptions & { maxTokens?: number } = {},
): Promise<Uint32Array> {
  const separator = tokenizer.idOf(documentSeparator);
  const parts: Uint32Array[] = [];
  const stage = new Stage("tokenize", text.length, "characters", onProgress);
  let length = 0;
  for (const document of text.split(documentSeparator)) {
    for (const piece of pieces(document)) {
      if (length >= maxTokens) break;
      await breathe(signal);
      const tokens = tokenizer.encode(piece, { addSpecialTokens: false });
      parts.push(tokens);
      length += tokens.length;
      stage.advance(piece.length);
    }
    if (separator !== undefined) {
      parts.push(Uint32Array.of(separator));
      length++;
    }
  }
  const all = new Uint32Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all.subarray(0, Math.min(length, maxTokens));
}

/** Cuts a long document before line breaks, so that the event loop and a Ctrl-C get their turn. */
function* pieces(document: string): Iterable<string> {
  const size = 1 << 16;
  for (let from = 0; from < document.length; ) {
    let to = from + size < document.length ? document.indexOf("\n", from + size) : -1;
    if (to < 0) to = document.length;
    yield document.slice(from, to);
    from = to;
  }
}

/** What a language model is trained on, in batches of one shape: `tokens` and `label` int32 [sequences · window]. */
export interface Windows {
  readonly count: number;
  /** Depends on seed and step alone. */
  batch(step: number): Batch;
  /** In their order, for evaluation: batches of one size, the rest dropped. */
  inOrder(maxWindows: number): Iterable<Batch>;
}

/** Windows of a token stream, in random order, each once per epoch; a step's batch depends on seed and step alone. */
export class TokenWindows implements Windows {
  readonly count: number;

  /** @throws UsageError when the text does not fill one batch */
  constructor(
    readonly tokens: Uint32Array,
    readonly window: number,
    readonly batchSize: number,
    readonly seed: number,
  ) {
    this.count = Math.floor((tokens.length - 1) / window);
    if (this.count < batchSize) {
      throw new UsageError(
        `${tokens.length} tokens of text make ${this.count} windows of ${window}; a batch needs ${batchSize}. Give more text or smaller windows`,
      );
    }
  }

  /** `tokens` and `label` int32 [batchSize · window]. */
  batch(step: number): Batch {
    const perEpoch = Math.floor(this.count / this.batchSize);
    const epoch = Math.floor(step / perEpoch);
    const order = this.#orderOf(epoch);
    const from = (step % perEpoch) * this.batchSize;
    return this.#windows(order.subarray(from, from + this.batchSize));
  }

  /** The windows of the text in their order, for evaluation: batches of `batchSize`, the rest dropped. */
  *inOrder(maxWindows: number): Iterable<Batch> {
    for (let from = 0; from + this.batchSize <= Math.min(this.count, maxWindows); from += this.batchSize) {
      yield this.#windows(Uint32Array.from({ length: this.batchSize }, (_, i) => from + i));
    }
  }

  #epoch = -1;
  #order: Uint32Array = new Uint32Array();

  #orderOf(epoch: number): Uint32Array {
    if (epoch !== this.#epoch) {
      this.#order = permutation(randomFor(this.seed, "windows", epoch), this.count);
      this.#epoch = epoch;
    }
    return this.#order;
  }

  #windows(indices: Uint32Array): Batch {
    const { window } = this;
    const tokens = new Int32Array(indices.length * window);
    const label = new Int32Array(indices.length * window);
    for (const [i, index] of indices.entries()) {
      tokens.set(this.tokens.subarray(index * window, index * window + window), i * window);
      label.set(this.tokens.subarray(index * window + 1, index * window + window + 1), i * window);
    }
    return { tokens: { shape: [tokens.length], values: tokens }, label: { shape: [label.length], values: label } };
  }
}
