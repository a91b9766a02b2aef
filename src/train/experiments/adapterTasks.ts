import type { Random } from "../../core/index.js";
import type { Batch } from "../objective.js";

/** What is done to the letters of a text, by the letter that names it. */
const operations: Readonly<Record<string, { title: string; apply(text: string): string }>> = {
  k: { title: "copy", apply: (text) => text },
  r: { title: "reverse", apply: (text) => [...text].reverse().join("") },
  u: { title: "upper case", apply: (text) => text.toUpperCase() },
  s: { title: "sort", apply: (text) => [...text].sort().join("") },
  t: { title: "first to the end", apply: (text) => text.slice(1) + text[0] },
  w: { title: "last twice", apply: (text) => text + text.at(-1) },
  n: { title: "count", apply: (text) => String(text.length) },
};

/** Tasks that adapters learn: one operation, or one after the other. */
export const learntTasks = ["k", "r", "u", "s", "t", "w", "n", "su", "tu", "sr", "rt", "wr", "st", "tw"] as const;
/** Tasks that nothing has seen: other pairs of the same operations. */
export const heldOutTasks = ["ru", "wu", "tr", "rw", "sw"] as const;

/** "reverse, then upper case" */
export const titleOf = (task: string): string => [...task].map((letter) => operations[letter].title).join(", then ");

const letters = "abcdef";
const shortest = 2;
const longest = 4;

/** Characters of all texts; the first fills up. */
const characters = [..." >:;", ...letters, ...letters.toUpperCase(), ..."234", ...Object.keys(operations)];
const ids = new Map(characters.map((character, id) => [character, id]));
export const vocabSize = characters.length;

/** A text and what a task makes of it. */
export interface Example {
  input: string;
  output: string;
}

export function exampleOf(task: string, random: Random): Example {
  const length = shortest + random.integer(longest - shortest + 1);
  const input = Array.from({ length }, () => letters[random.integer(letters.length)]).join("");
  return { input, output: [...task].reduce((text, letter) => operations[letter].apply(text), input) };
}

/** A text of which only answers are learnt. */
class AskedText {
  #text = "";
  readonly #learnt: boolean[] = [];

  add(text: string, isLearnt: boolean): this {
    this.#text += text;
    for (const _ of text) this.#learnt.push(isLearnt);
    return this;
  }

  /** Tokens of a window, what follows each, −1 where that is not learnt. */
  window(length: number): { tokens: Int32Array; label: Int32Array } {
    const tokens = new Int32Array(length);
    const label = new Int32Array(length).fill(-1);
    for (const [i, character] of [...this.#text].entries()) {
      const id = ids.get(character)!;
      if (i < length) tokens[i] = id;
      if (i > 0 && i <= length && this.#learnt[i]) label[i - 1] = id;
    }
    return { tokens, label };
  }
}

/** "abc>cba;" after what comes before, of which the answer is learnt. */
const asked = (text: AskedText, { input, output }: Example, isLearnt = true) =>
  text.add(`${input}>`, false).add(`${output};`, isLearnt);

/** Examples of one task one behind the other, without its name: what the base model learns, and what shows it a task in context. */
export function episode(examples: readonly Example[], learnt: "all" | "last"): AskedText {
  const text = new AskedText();
  for (const [i, example] of examples.entries()) asked(text, example, learnt === "all" || i === examples.length - 1);
  return text;
}

/** "ru:abc>CBA;": a task by its name, once. */
export const instruction = (task: string, example: Example): AskedText =>
  asked(new AskedText().add(`${task}:`, false), example);

/** Tokens of the longest instruction: name, two signs, text, answer, end. */
export const instructionWindow = 2 + 1 + longest + 1 + longest + 1 + 1;
/** Tokens of an episode of so many examples. */
export const episodeWindow = (examples: number): number => examples * (longest + 1 + longest + 1 + 1);

/** As an objective takes them. */
export function batchOf(texts: readonly AskedText[], window: number): Batch {
  const tokens = new Int32Array(texts.length * window);
  const label = new Int32Array(texts.length * window);
  for (const [t, text] of texts.entries()) {
    const own = text.window(window);
    tokens.set(own.tokens, t * window);
    label.set(own.label, t * window);
  }
  return { tokens: { shape: [tokens.length], values: tokens }, label: { shape: [label.length], values: label } };
}

/**
 * Share of the texts whose learnt tokens are all the likeliest ones: the answers that greedy decoding writes.
 * @param logits f32 [texts · window, vocabSize]
 */
export function exactShare(logits: ArrayLike<number>, { label }: Batch, window: number): number {
  const texts = label.values.length / window;
  let right = 0;
  for (let t = 0; t < texts; t++) {
    let isRight = true;
    for (let i = t * window; i < (t + 1) * window; i++) {
      const wanted = label.values[i];
      if (wanted < 0) continue;
      const own = logits[i * vocabSize + wanted];
      for (let c = 0; c < vocabSize; c++) if (c !== wanted && logits[i * vocabSize + c] >= own) isRight = false;
    }
    if (isRight) right++;
  }
  return right / texts;
}
