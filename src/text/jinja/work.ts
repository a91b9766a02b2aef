import { TemplateError, type Value } from "./values.js";

/** Counted in steps; a step of the interpreter takes some 100 ns, one of a text operation 1 ns or less. */
const maxWork = 2 ** 26;
const stepsPerNode = 32;
const maxCharacters = 2 ** 24;
export const maxItems = 100_000;
const maxCalls = 200;

/** What a template may still do. It comes from a file, so that every operation is counted before it is done. */
export class Work {
  #left = maxWork;
  #calls = 0;
  #printed = 0;

  /** A turn of a loop sets a dozen names. */
  turn(): void {
    this.spend(8 * stepsPerNode);
  }

  node(): void {
    this.spend(stepsPerNode);
  }

  /** @param steps about as many as characters or items are looked at */
  spend(steps: number): void {
    this.#left -= steps;
    if (this.#left < 0) throw new TemplateError("it does more than a template may");
  }

  /** Checks a text or a list before it is made. */
  room(length: number, what: "characters" | "items"): void {
    const most = what === "characters" ? maxCharacters : maxItems;
    if (!(length <= most)) throw new TemplateError(`a value of ${length} ${what}; at most ${most}`);
    this.spend(length);
  }

  /** Counts what is printed. */
  print(characters: number): void {
    this.#printed += characters;
    if (this.#printed > maxCharacters) throw new TemplateError(`more than ${maxCharacters} characters are written`);
    this.spend(characters);
  }

  /** A value that an operation has made. */
  made<T extends Value>(value: T): T {
    if (typeof value === "string") this.room(value.length, "characters");
    else if (Array.isArray(value)) this.room(value.length, "items");
    else if (value instanceof Map) this.room(value.size, "items");
    return value;
  }

  call<T>(run: () => T): T {
    if (++this.#calls > maxCalls) throw new TemplateError(`more than ${maxCalls} calls inside each other`);
    const result = run();
    this.#calls--;
    return result;
  }
}
