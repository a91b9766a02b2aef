// What tokenizers of made-up models are put together from.

/** Printable stand-ins of the 256 bytes, as GPT-2's byte-level vocabulary spells them. */
export function byteSymbols() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/** An entry of `added_tokens` in tokenizer.json. */
export const specialToken = (content, id) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});
