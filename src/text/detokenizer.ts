import type { Tokenizer } from "./tokenizer.js";

const replacement = "\uFFFD";

/** Above this many undecided tokens the window is cut; a character of text seldom has more than 4. */
const longWindow = 16;

export interface DetokenizerOptions {
  skipSpecialTokens?: boolean;
  /**
   * Tokens of the text that is continued, of which the last few are looked at: decoders that drop the first space of a text
   * (SentencePiece) keep that of a continuation. Default: none, the first token begins a text of its own.
   */
  after?: ArrayLike<number>;
}

/**
 * Turns a stream of token ids into text as soon as it is certain. A token may hold a part of a character, so the last
 * character is held back while it is incomplete. Each step decodes only the tokens since the last certain boundary and,
 * as context, those of the piece before it (decoders drop a leading space), so the cost is linear in the tokens.
 * Everything pushed and flushed, joined, is what `decode` gives for all ids at once; with `after`, what it gives for both
 * together beyond the text of `after`.
 */
export class Detokenizer {
  /** Context tokens first, then those whose text is not all emitted. */
  #window: number[] = [];
  #contextTokens = 0;
  /** Characters of the decoded window that were emitted, the context's included. */
  #emitted = 0;

  constructor(
    readonly tokenizer: Tokenizer,
    readonly options: DetokenizerOptions = {},
  ) {
    this.#window = this.#lastTokens(options.after ?? []);
    this.#contextTokens = this.#window.length;
    const text = this.#decode(this.#window);
    this.#emitted = text.endsWith(replacement) ? text.length - 1 : text.length;
  }

  /** @returns the text that this token makes certain; often "" inside a character. Never a half character. */
  push(id: number): string {
    if (this.#skips(id)) return "";
    this.#window.push(id);
    const text = this.#decode(this.#window);
    // An unfinished character is at most one U+FFFD at the end; what is before it cannot change any more.
    const certain = text.endsWith(replacement) ? text.length - 1 : text.length;
    const piece = text.slice(this.#emitted, certain);
    this.#emitted = Math.max(this.#emitted, certain);
    if (certain === text.length && piece !== "") this.#makeContext();
    else if (this.#window.length - this.#contextTokens > longWindow) this.#shorten(text);
    return piece;
  }

  /** @returns what was held back: a character that never became complete is U+FFFD. The next push begins a new text. */
  flush(): string {
    const undecided = this.#window.length > this.#contextTokens;
    const rest = undecided ? this.#decode(this.#window).slice(this.#emitted) : "";
    this.#window = [];
    this.#contextTokens = 0;
    this.#emitted = 0;
    return rest;
  }

  /** Everything is emitted and the window ends between characters: keep its last piece as the context of the next. */
  #makeContext(): void {
    this.#window = this.#window.slice(this.#contextTokens);
    this.#contextTokens = this.#window.length;
    this.#emitted = this.#decode(this.#window).length;
  }

  /**
   * Cuts a window that grows because its bytes are not UTF-8. A cut is right where the parts decode to the same text as
   * the whole: bytes that continue a character across the cut would give fewer replacement characters together.
   */
  #shorten(text: string): void {
    for (let cut = this.#window.length - 1; cut > 0; cut--) {
      const before = this.#decode(this.#window.slice(0, cut));
      const after = this.#decode(this.#window.slice(cut));
      if (after === "" || before.length > this.#emitted || before + after !== text) continue;
      this.#window = this.#window.slice(cut);
      this.#contextTokens = 0;
      this.#emitted -= before.length;
      return;
    }
  }

  /** The end of a text as context: as few tokens as a long window, and none that end a character begun before them. */
  #lastTokens(ids: ArrayLike<number>): number[] {
    const last: number[] = [];
    for (let i = ids.length - 1; i >= 0 && last.length < longWindow; i--)
      if (!this.#skips(ids[i])) last.unshift(ids[i]);
    while (last.length > 1 && this.#decode(last).startsWith(replacement)) last.shift();
    return last;
  }

  #skips(id: number): boolean {
    return this.options.skipSpecialTokens === true && this.tokenizer.specialIds.has(id);
  }

  #decode(ids: readonly number[]): string {
    return this.tokenizer.decode(ids, this.options);
  }
}
