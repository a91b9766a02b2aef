import { fp4Values } from "../../tensor/index.js";

/** Twice the values of FP4 (E2M1), which are integers from −12 to 12: with half the scale they lie on a grid. */
const doubled = fp4Values.map((value) => 2 * value);
/** Bits that hold −12 … 12. */
export const doubledBits = 5;

/** Twice the values of codes of four bits, two in a byte, the first in the low half. */
export function doubledFp4(bytes: Uint8Array): Float32Array {
  const out = new Float32Array(bytes.length * 2);
  for (let i = 0; i < bytes.length; i++) {
    out[2 * i] = doubled[bytes[i] & 15];
    out[2 * i + 1] = doubled[bytes[i] >> 4];
  }
  return out;
}
