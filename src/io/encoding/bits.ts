/** Codes of 1 to 8 bits without gaps, least significant bit first. */

/** Puts codes into `bytes`, which is 0 there, from bit `at` on. */
export function packCodes(codes: Uint8Array, bits: number, bytes: Uint8Array, at: number): void {
  let byte = Math.floor(at / 8);
  let shift = at % 8;
  for (const code of codes) {
    bytes[byte] |= code << shift;
    if (shift + bits > 8) bytes[byte + 1] |= code >> (8 - shift);
    shift += bits;
    byte += shift >> 3;
    shift &= 7;
  }
}

/** @param at bit of the first code */
export function unpackCodes(bytes: Uint8Array, bits: number, at: number, count: number): Uint8Array {
  const codes = new Uint8Array(count);
  const mask = (1 << bits) - 1;
  let byte = Math.floor(at / 8);
  let shift = at % 8;
  for (let i = 0; i < count; i++) {
    // Beyond the end there is undefined, which counts as 0 and is masked away.
    codes[i] = (((bytes[byte + 1] << 8) | bytes[byte]) >> shift) & mask;
    shift += bits;
    byte += shift >> 3;
    shift &= 7;
  }
  return codes;
}
