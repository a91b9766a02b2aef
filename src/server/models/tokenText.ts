import type { Tokenizer } from "../../text/index.js";

/** A token by itself: its text, with U+FFFD for parts of characters, and its bytes. */
export interface TokenText {
  readonly text: string;
  readonly bytes: readonly number[];
}

const utf8 = new TextEncoder();

/** Characters that stand for bytes in vocabularies of the GPT-2 kind. */
const byteOfCharacter = (() => {
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    table.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return table;
})();

/** What single tokens stand for, each worked out once. */
export class TokenTexts {
  readonly #known = new Map<number, TokenText>();

  constructor(readonly tokenizer: Tokenizer) {}

  of(id: number): TokenText {
    let known = this.#known.get(id);
    if (known === undefined) {
      known = this.#make(id);
      this.#known.set(id, known);
    }
    return known;
  }

  #make(id: number): TokenText {
    const token = this.tokenizer.tokenOf(id) ?? "";
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
    if (byte !== null) return fromBytes([Number.parseInt(byte[1], 16)]);
    let text = this.tokenizer.decode([id]);
    // Decoders of the SentencePiece kind drop the space that begins a text.
    if (token.startsWith("\u2581") && !text.startsWith(" ")) text = ` ${text}`;
    const bytes = Array.from(token, (character) => byteOfCharacter.get(character));
    if (text.includes("\uFFFD") && bytes.every((one) => one !== undefined)) return fromBytes(bytes as number[]);
    return { text, bytes: [...utf8.encode(text)] };
  }
}

const fromBytes = (bytes: readonly number[]): TokenText => ({
  text: new TextDecoder().decode(Uint8Array.from(bytes)),
  bytes,
});
