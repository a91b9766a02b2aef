import { UsageError } from "../core/index.js";

/**
 * Passes text on until a stop string appears. The end of the text that could become a stop string is held back, so that
 * one that is split over many pieces is never seen by anyone.
 */
export class StopStrings {
  #held = "";
  #stopped = false;

  /** @throws UsageError for an empty stop string, and for one text in place of a list. */
  constructor(readonly strings: readonly string[]) {
    if (!Array.isArray(strings)) throw new UsageError("stopStrings is no list of texts");
    if (strings.includes("")) throw new UsageError("a stop string is empty");
  }

  /** Whether a stop string has appeared; nothing is passed on any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /**
   * @returns what can be passed on: everything before the stop string that is complete first (the longer of two that end
   * together), or before what may become one. How the text is cut into pieces makes no difference.
   */
  push(piece: string): string {
    if (this.#stopped) return "";
    const text = this.#held + piece;
    const begin = this.#find(text);
    if (begin !== undefined) {
      this.#stopped = true;
      this.#held = "";
      return text.slice(0, begin);
    }
    const certain = text.length - this.#undecided(text);
    this.#held = text.slice(certain);
    return text.slice(0, certain);
  }

  /** @returns what was held back, at the end of the text. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Where the stop string that ends first begins. */
  #find(text: string): number | undefined {
    const found = this.strings
      .map((stop) => ({ begin: text.indexOf(stop), length: stop.length }))
      .filter(({ begin }) => begin >= 0)
      .sort((a, b) => a.begin + a.length - (b.begin + b.length) || a.begin - b.begin);
    return found[0]?.begin;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  #undecided(text: string): number {
    const longest = Math.max(0, ...this.strings.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(text.length - length);
      if (this.strings.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
