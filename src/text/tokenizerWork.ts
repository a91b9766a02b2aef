import { FormatError } from "../core/index.js";
import { BoundedPattern, type WorkCounter } from "./patterns/boundedPattern.js";
import { isPublished } from "./patterns/published.js";

/** What one call of a tokenizer may do: for each character of its text, and besides. Honest ones need a tenth. */
const limits = {
  steps: { perCharacter: 256, besides: 10_000_000 },
  growth: { perCharacter: 32, besides: 2 ** 16 },
} as const;

/** A step of the library: a normaliser, a pre-tokeniser, a post-processor or a decoder, or a sequence of such. */
type Step = Record<string, unknown>;
type Method = (this: Step, first: unknown, ...rest: unknown[]) => unknown;

/** The parts of a tokenizer.json whose steps transform a text: where the library keeps them, and what their method makes. */
const parts = {
  normalizer: { steps: { ours: "normalizers", library: "normalizers" }, method: "normalize" },
  pre_tokenizer: { steps: { ours: "pretokenizers", library: "tokenizers" }, method: "pre_tokenize_text" },
  post_processor: { steps: { ours: "processors", library: "processors" }, method: "post_process" },
  decoder: { steps: { ours: "decoders", library: "decoders" }, method: "decode_chain" },
} as const;
export type TokenizerPart = keyof typeof parts;

/**
 * Bounds the work of a tokenizer whose file is not ours: how often its patterns go back over a text, and how much longer
 * its steps, one after the other, make the text. Both are in proportion to the text of one call.
 */
export class TokenizerWork {
  #characters = 0;
  #steps = 0;
  #growth = 0;

  /** @param file for messages */
  constructor(readonly file: string) {}

  /** A call begins, with a text of so many characters. */
  begin(characters: number): void {
    this.#characters = characters;
    this.#steps = 0;
    this.#growth = 0;
  }

  /**
   * Puts bounds into a part of a tokenizer that the library has made.
   * @throws FormatError for a pattern that cannot be matched in counted steps
   */
  bound(step: unknown, part: TokenizerPart, field: string = part): void {
    if (step === null || step === undefined) return;
    const { steps, method } = parts[part];
    const made = step as Step;
    const inner = made[steps.library];
    if (Array.isArray(inner)) {
      for (const [i, each] of inner.entries()) this.bound(each, part, `${field}.${steps.ours}.${i}`);
      return;
    }
    const counter = this.#counter(field);
    const { pattern } = (made.config ?? {}) as { pattern?: { Regex?: string } };
    if (made.pattern instanceof RegExp && pattern !== undefined) {
      made.pattern = this.#boundedPattern(made.pattern, pattern.Regex, `${field}.pattern`);
    }
    const run = made[method] as Method;
    made[method] = (first: unknown, ...rest: unknown[]) => {
      const result = run.call(made, first, ...rest);
      counter.growth(lengthOf(result) - lengthOf(first));
      return result;
    };
  }

  #boundedPattern(made: RegExp, regex: string | undefined, field: string): RegExp {
    try {
      return new BoundedPattern(made, made.flags, this.#counter(field), regex === undefined || isPublished(regex));
    } catch (cause) {
      throw new FormatError(
        { file: this.file, field, problem: `not a pattern that can be used (${(cause as Error).message})` },
        { cause },
      );
    }
  }

  #counter(field: string): WorkCounter {
    return {
      steps: (count) => {
        this.#steps += count;
        this.#check("steps", this.#steps, field, "steps of matching");
      },
      growth: (characters) => {
        this.#growth += Math.max(0, characters);
        this.#check("growth", this.#growth, field, "characters that were not in it");
      },
    };
  }

  #check(which: keyof typeof limits, done: number, field: string, what: string): void {
    const { perCharacter, besides } = limits[which];
    const limit = perCharacter * this.#characters + besides;
    if (done <= limit) return;
    throw new FormatError({
      file: this.file,
      field,
      problem: `a text of ${this.#characters} characters makes more than ${limit} ${what}`,
      hint: "No tokenizer needs that; take the model's tokenizer from its source",
    });
  }
}

/** Characters of a text or of texts; tokens of what a post-processor takes and makes. */
function lengthOf(value: unknown): number {
  if (typeof value === "string") return value.length;
  if (Array.isArray(value)) return value.reduce((sum: number, each) => sum + lengthOf(each), 0);
  return lengthOf((value as { tokens?: unknown }).tokens ?? "");
}
