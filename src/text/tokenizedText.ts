import { sha256Hex } from "../io/index.js";
import type { Tokenizer } from "./tokenizer.js";

/** Text to calibrate or measure on, as tokens, with the hash that says which text it was. */
export interface TokenizedText {
  tokens: Uint32Array;
  /** SHA-256 of the UTF-8 form, 64 hexadecimal digits. */
  sha256: string;
}

/** Without BOS or other special tokens of the tokenizer's own. */
export async function tokenizeText(tokenizer: Tokenizer, text: string): Promise<TokenizedText> {
  return { tokens: tokenizer.encode(text, { addSpecialTokens: false }), sha256: await sha256Hex(text) };
}
