import { isJsonObject } from "../io/index.js";

/**
 * Steps of a tokenizer.json that the library which runs them here does otherwise than the Rust library that the file is
 * written for: fields that it does not look at, and classes of characters that are not Unicode's.
 */

type Fields = Readonly<Record<string, unknown>>;
/** A step as the library has made it. */
type Made = Record<string, unknown>;
type PreTokenize = (text: string, options?: { section_index?: number }) => string[];

/** How pieces between two matches and the matches themselves become pieces, by the name in lower case. */
const behaviors: Readonly<Record<string, (pieces: readonly Piece[]) => readonly Piece[]>> = {
  isolated: (pieces) => pieces,
  removed: (pieces) => pieces.filter(({ matched }) => !matched),
  mergedwithprevious: (pieces) => joined(pieces, (last, piece) => piece.matched && !last.matched),
  mergedwithnext: (pieces) => joined(pieces, (last, piece) => last.matched && !piece.matched),
  contiguous: (pieces) => joined(pieces, (last, piece) => last.matched === piece.matched),
};
/** What `behavior` may say. */
export const isBehavior = (name: unknown): boolean =>
  typeof name === "string" && Object.hasOwn(behaviors, name.toLowerCase());

interface Piece {
  text: string;
  matched: boolean;
}

/** Pieces in their order, each joined to the one before it where `wanted` says so of the two as they were. */
function joined(pieces: readonly Piece[], wanted: (last: Piece, piece: Piece) => boolean): readonly Piece[] {
  const result: Piece[] = [];
  for (const [i, piece] of pieces.entries()) {
    const last = result.at(-1);
    if (last !== undefined && wanted(pieces[i - 1], piece)) last.text += piece.text;
    else result.push({ ...piece });
  }
  return result;
}

function cut(text: string, pattern: RegExp, behavior: string, invert = false): string[] {
  const pieces: Piece[] = [];
  let done = 0;
  const add = (from: number, to: number, matched: boolean) => {
    if (to > from) pieces.push({ text: text.slice(from, to), matched: matched !== invert });
  };
  for (const { 0: found, index } of text.matchAll(pattern)) {
    add(done, index, false);
    add(index, index + found.length, true);
    done = index + found.length;
  }
  add(done, text.length, false);
  return behaviors[behavior](pieces).map((piece) => piece.text);
}

const behaviorOf = ({ behavior }: Fields): string =>
  isBehavior(behavior) ? String(behavior).toLowerCase() : "isolated";

/** Whether a Metaspace step puts its mark in front of a text: always, only at the beginning of all, never. */
function prependScheme({ prepend_scheme: scheme, add_prefix_space: legacy }: Fields): string {
  return typeof scheme === "string" ? scheme : legacy === false ? "never" : "always";
}

const word = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
const wordsAndSigns = new RegExp(
  `${word}+|[^\\p{White_Space}\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]+`,
  "gu",
);
const byteLevel =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

const preTokenizers: Readonly<Record<string, (step: Fields, made: Made) => PreTokenize | undefined>> = {
  // The pattern is looked up when it is used: it is given bounds after this.
  Split: (step, made) => (text) => cut(text, made.pattern as RegExp, behaviorOf(step), step.invert === true),
  Punctuation: (step) => (text) => cut(text, /[\p{P}!-/:-@[-`{-~]/gu, behaviorOf(step)),
  Digits:
    ({ individual_digits: each }) =>
    (text) =>
      cut(text, /\p{N}/gu, each === true ? "isolated" : "contiguous"),
  Whitespace: () => (text) => cut(text, wordsAndSigns, "removed", true),
  WhitespaceSplit: () => (text) => cut(text, /\p{White_Space}/gu, "removed"),
  FixedLength:
    ({ length }) =>
    (text) => {
      const characters = Array.from(text);
      const size = length as number;
      return Array.from({ length: Math.ceil(characters.length / size) }, (_, i) =>
        characters.slice(i * size, (i + 1) * size).join(""),
      );
    },
  Metaspace(step) {
    const mark = typeof step.replacement === "string" ? step.replacement : "\u2581";
    const scheme = prependScheme(step);
    const pattern = new RegExp(mark.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"), "gu");
    return (text, options) => {
      const marked = text.replaceAll(" ", () => mark);
      const first = scheme === "always" || (scheme === "first" && options?.section_index === 0);
      const whole = first && !marked.startsWith(mark) ? mark + marked : marked;
      return step.split === false ? [whole] : cut(whole, pattern, "mergedwithnext");
    };
  },
  BertPreTokenizer: () => (text) => text.match(/[^\p{White_Space}\p{P}!-/:-@[-`{-~]+|[\p{P}!-/:-@[-`{-~]/gu) ?? [],
  ByteLevel(_step, made) {
    made.pattern = byteLevel;
    return undefined;
  },
};

/** Does the steps of a pre-tokenizer exactly. @param made what the library has made of `step` */
export function makePreTokenizerExact(step: unknown, made: unknown): void {
  if (!isJsonObject(step) || typeof made !== "function") return;
  const library = made as unknown as Made;
  if (Array.isArray(step.pretokenizers)) {
    for (const [i, inner] of step.pretokenizers.entries())
      makePreTokenizerExact(inner, (library.tokenizers as unknown[])[i]);
    return;
  }
  const exact = Object.hasOwn(preTokenizers, String(step.type)) ? preTokenizers[String(step.type)] : undefined;
  const run = exact?.(step, library);
  if (run !== undefined) library.pre_tokenize_text = run;
}

/** The same for a decoder: one that never puts a mark in front does not take one away. */
export function makeDecoderExact(step: unknown, made: unknown): void {
  if (!isJsonObject(step) || typeof made !== "function") return;
  const library = made as unknown as Made;
  if (Array.isArray(step.decoders)) {
    for (const [i, inner] of step.decoders.entries()) makeDecoderExact(inner, (library.decoders as unknown[])[i]);
  }
  if (step.type !== "Metaspace" || prependScheme(step) !== "never") return;
  const mark = typeof step.replacement === "string" ? step.replacement : "\u2581";
  library.decode_chain = (tokens: string[]) => tokens.map((token) => token.replaceAll(mark, " "));
}
