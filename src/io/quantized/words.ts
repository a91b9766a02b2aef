import { unpackCodes } from "../encoding/index.js";

/** Codes of 1 to 8 bits in words of 32 bits, without gaps and least significant bit first. */

/** Words that `count` codes take. */
export const wordsOf = (count: number, bits: number): number => Math.ceil((count * bits) / 32);

/**
 * Codes that lie down the columns of words [wordRows, columns]: those of columns [start, start + count), u8 [count, codes].
 * @param bytes of all words, little-endian
 */
export function codesOfColumns(
  bytes: Uint8Array,
  columns: number,
  bits: number,
  codes: number,
  start: number,
  count: number,
): Uint8Array {
  const wordRows = bytes.byteLength / 4 / columns;
  const out = new Uint8Array(count * codes);
  const column = new Uint8Array(wordRows * 4);
  for (let c = 0; c < count; c++) {
    for (let w = 0, from = (start + c) * 4; w < wordRows; w++, from += columns * 4) {
      for (let b = 0; b < 4; b++) column[w * 4 + b] = bytes[from + b];
    }
    out.set(unpackCodes(column, bits, 0, codes), c * codes);
  }
  return out;
}
