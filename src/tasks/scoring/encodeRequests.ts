import { quote, UsageError } from "../../core/index.js";
import type { Model } from "../../model/index.js";
import type { Tokenizer } from "../../text/index.js";
import type { ContinuationRequest } from "../requests/requests.js";

/** Tokens that are given and tokens that are scored; neither is empty. */
export interface TokenRequest {
  context: Uint32Array;
  continuation: Uint32Array;
}

/** How texts become tokens. */
export interface EncodingOptions {
  /**
   * Whether texts begin with the begin-of-text token. Default: as the tokenizer does it (`add_bos_token` of
   * lm-evaluation-harness).
   */
  bos?: boolean;
  /** Tokens of a text at most; what is before is left out. Default: as many as the model was made for. */
  maxTokens?: number;
}

/** Makes tokens of texts as lm-evaluation-harness does. */
export class RequestEncoder {
  readonly maxTokens: number;
  #last: { text: string; tokens: Uint32Array } | undefined;

  constructor(
    readonly model: Model,
    readonly tokenizer: Tokenizer,
    readonly options: EncodingOptions,
  ) {
    const { maxPositions } = model.config;
    this.maxTokens = options.maxTokens ?? maxPositions;
    if (!(Number.isSafeInteger(this.maxTokens) && this.maxTokens >= 2 && this.maxTokens <= maxPositions)) {
      throw new UsageError(`texts of ${this.maxTokens} tokens; the model was made for 2 to ${maxPositions}`);
    }
  }

  /** What stands for nothing in front of a text. */
  get prefix(): number {
    const id = this.tokenizer.beginId ?? this.model.config.eosTokenIds[0];
    if (id === undefined) throw new UsageError("the tokenizer has no token that begins or ends a text");
    return id;
  }

  encode(text: string): Uint32Array {
    const { bos } = this.options;
    const { beginId } = this.tokenizer;
    const begins = beginId !== undefined && text.startsWith(this.tokenizer.tokenOf(beginId)!);
    const tokens = this.tokenizer.encode(text, { addSpecialTokens: bos !== false && !begins });
    if (bos !== true || tokens[0] === this.prefix) return tokens;
    return Uint32Array.of(this.prefix, ...tokens);
  }

  /** A continuation is what the tokens of both have beyond those of the context. */
  continuation({ context, continuation }: ContinuationRequest): TokenRequest {
    if (context === "") {
      const tokens = this.#scored(this.tokenizer.encode(continuation, { addSpecialTokens: false }), continuation);
      if (tokens[0] !== this.prefix) return this.#cut(Uint32Array.of(this.prefix), tokens);
      return this.#cut(tokens.subarray(0, 1), this.#scored(tokens.subarray(1), continuation));
    }
    // Blanks at the end belong to the word behind them.
    const given = context.trimEnd();
    const whole = this.encode(context + continuation);
    const { length } = this.#encodeContext(given);
    return this.#cut(whole.subarray(0, length), this.#scored(whole.subarray(length), continuation));
  }

  #scored(tokens: Uint32Array, text: string): Uint32Array {
    if (tokens.length === 0) throw new UsageError(`${quote(text)} has no tokens to be scored behind its context`);
    if (tokens.length > this.maxTokens) {
      throw new UsageError(`${quote(text)} has ${tokens.length} tokens; at most ${this.maxTokens} can be scored`);
    }
    return tokens;
  }

  /** Choices have their context in common. */
  #encodeContext(text: string): Uint32Array {
    if (this.#last?.text !== text) this.#last = { text, tokens: this.encode(text) };
    return this.#last.tokens;
  }

  /** The end of what is given, so that all but the last token fit. */
  #cut(context: Uint32Array, continuation: Uint32Array): TokenRequest {
    const room = this.maxTokens + 1 - continuation.length;
    if (context.length === 0) throw new UsageError("a context that has no tokens");
    return { context: context.subarray(Math.max(0, context.length - room)), continuation };
  }
}
