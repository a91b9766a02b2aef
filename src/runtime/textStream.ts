import { Detokenizer, type Tokenizer } from "../text/index.js";
import { StopStrings } from "./stopStrings.js";

/** Token ids in, text out, up to the first stop string. Special tokens give no text. */
export class TextStream {
  readonly #detokenizer: Detokenizer;
  readonly #stopStrings: StopStrings;

  /** @param after the tokens whose text is continued; left out where the tokens begin a text of their own */
  constructor(tokenizer: Tokenizer, stopStrings: readonly string[], after?: ArrayLike<number>) {
    this.#stopStrings = new StopStrings(stopStrings);
    this.#detokenizer = new Detokenizer(tokenizer, { skipSpecialTokens: true, after });
  }

  /** Whether a stop string has appeared. */
  get stopped(): boolean {
    return this.#stopStrings.stopped;
  }

  push(id: number): string {
    return this.#stopStrings.push(this.#detokenizer.push(id));
  }

  /** @returns what was held back, at the end of the tokens. */
  flush(): string {
    return this.#stopStrings.push(this.#detokenizer.flush()) + this.#stopStrings.flush();
  }
}
