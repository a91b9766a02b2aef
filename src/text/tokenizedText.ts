import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import { sha256Hex } from "../io/index.js";
import type { Tokenizer } from "./tokenizer.js";

/** Text to calibrate or measure on, as tokens, with the hash that says which text it was. */
export interface TokenizedText {
  tokens: Uint32Array;
  /** SHA-256 of the UTF-8 form of the whole text, 64 hexadecimal digits. */
  sha256: string;
  /** Where the text came from, for messages. */
  name?: string;
  /** The tokens are windows, each begun by a begin-of-text token (`beginWindows`). */
  windowsBegin?: true;
  /** The text that the first `count` tokens stand for. */
  beginning?(count: number): string;
}

/** How much of a text is made into tokens, and who is told. */
export interface TokenizeOptions extends Pick<JobOptions, "signal" | "onProgress"> {
  /** The most tokens that are wanted, from the start; the rest of the text is not tokenised. Default: all. */
  maxTokens?: number;
  name?: string;
}

/** Characters that are tokenised at once; a turn of the event loop lies between two pieces. */
const pieceCharacters = 2 ** 16;
/** Characters on both sides of a cut that are tokenised together to see whether it is one. */
const contextCharacters = 256;
/** A cut is looked for in parts of the text that follow each other, and some are tried in each; without one the rest is one piece. */
const searchCharacters = 4096;
const maxPartsSearched = 64;
const maxCutsTried = 4;
/** In front of a word: after a line break, at a space, after a sign of scripts without spaces. */
const cutPlaces = [
  /(?<=\S\n)(?=[\p{L}\p{N}])/gu,
  /(?<=[\p{L}\p{N}])(?= [\p{L}\p{N}])/gu,
  /(?<=[\u3001\u3002\uff01\uff0c\uff1f])(?=\p{L})/gu,
];

/**
 * Tokenises a text without BOS or other special tokens of the tokenizer's own: piece by piece, so that it can be stopped, and
 * no more of it than is wanted. The tokens are those of the whole text.
 * @throws the signal's reason
 */
export async function tokenizeText(
  tokenizer: Tokenizer,
  text: string,
  { maxTokens = Number.POSITIVE_INFINITY, name, signal, onProgress }: TokenizeOptions = {},
): Promise<TokenizedText> {
  const pieces: Uint32Array[] = [];
  let count = 0;
  let start = 0;
  const stage = new Stage("tokenize", text.length, "characters", onProgress);
  while (start < text.length && count < maxTokens) {
    await breathe(signal);
    const end = cutAfter(tokenizer, text, start + pieceCharacters);
    const piece = encodeBetween(tokenizer, text, start, end);
    pieces.push(piece);
    count += piece.length;
    stage.advance(end - start);
    start = end;
  }
  const all = new Uint32Array(count);
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  const tokens = all.subarray(0, Math.min(count, maxTokens));
  const whole = start >= text.length && tokens.length === count;
  return {
    tokens,
    sha256: await sha256Hex(text),
    ...(name !== undefined && { name }),
    beginning: (wanted) => (whole && wanted >= tokens.length ? text : tokenizer.decode(tokens.subarray(0, wanted))),
  };
}

/** The tokens of a part that begins and ends at a cut, as they are in the whole text. */
function encodeBetween(tokenizer: Tokenizer, text: string, start: number, end: number): Uint32Array {
  const before = text.slice(Math.max(0, start - contextCharacters), start);
  const context = encode(tokenizer, before).length;
  return encode(tokenizer, before + text.slice(start, end)).subarray(context);
}

/**
 * A place from `from` on where a text may be cut: where the tokens of both sides together are those of each. The end of the
 * text where there is none.
 */
function cutAfter(tokenizer: Tokenizer, text: string, from: number): number {
  const last = Math.min(text.length, from + maxPartsSearched * searchCharacters);
  for (let next = from; next < last; next += searchCharacters) {
    for (const place of cutPlaces) {
      place.lastIndex = 0;
      const part = text.slice(next - 2, next + searchCharacters);
      for (let tried = 0; tried < maxCutsTried; tried++) {
        const found = place.exec(part);
        if (found === null) break;
        const cut = next - 2 + found.index;
        if (cut >= from && isCut(tokenizer, text, cut)) return cut;
        place.lastIndex = found.index + 1;
      }
    }
  }
  return text.length;
}

function isCut(tokenizer: Tokenizer, text: string, cut: number): boolean {
  const before = text.slice(Math.max(0, cut - contextCharacters), cut);
  const left = encode(tokenizer, before);
  const both = encode(tokenizer, before + text.slice(cut, cut + contextCharacters));
  return left.every((id, i) => id === both[i]);
}

const encode = (tokenizer: Tokenizer, text: string) => tokenizer.encode(text, { addSpecialTokens: false });

/**
 * The text in windows of `window` tokens that each begin with a begin-of-text token and hold window − 1 tokens of the text.
 * @throws UsageError for a tokenizer without such a token
 */
export function beginWindows(text: TokenizedText, tokenizer: Tokenizer, window: number): TokenizedText {
  const begin = beginToken(tokenizer);
  const { name, sha256, tokens } = text;
  const windows = Math.floor(tokens.length / (window - 1));
  const begun = new Uint32Array(windows * window);
  for (let w = 0; w < windows; w++) {
    begun[w * window] = begin;
    begun.set(tokens.subarray(w * (window - 1), (w + 1) * (window - 1)), w * window + 1);
  }
  return { tokens: begun, sha256, ...(name !== undefined && { name }), windowsBegin: true };
}

/** The begin-of-text token. @throws UsageError where the tokenizer has none */
export function beginToken(tokenizer: Tokenizer): number {
  if (tokenizer.beginId !== undefined) return tokenizer.beginId;
  throw new UsageError(
    "the tokenizer has no begin-of-text token (bos_token of tokenizer_config.json); leave `bos` out",
  );
}

/**
 * The tokens of a text that is read as a whole, at most `most`; what ends a text stays at its end ("[SEP]").
 * @param bos begin with the begin-of-text token
 * @throws UsageError for a text without tokens
 */
export function tokensOfText(tokenizer: Tokenizer, text: string, most: number, bos = false): Uint32Array {
  const own = tokenizer.encode(text);
  const tokens = bos ? Uint32Array.of(beginToken(tokenizer), ...own) : own;
  if (tokens.length === 0) throw new UsageError("a text has no tokens");
  if (tokens.length <= most) return tokens;
  const cut = tokens.slice(0, most);
  const end = tokens[tokens.length - 1];
  if (tokenizer.specialIds.has(end)) cut[most - 1] = end;
  return cut;
}
