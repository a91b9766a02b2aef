import { findThreshold } from "./topS.js";

/** Zeroes all but the `count` entries of largest magnitude over all parts together, in place. */
export function hardThreshold(parts: readonly Float32Array[], count: number): void {
  const { bits: threshold, ties } = findThreshold(parts, count);
  let left = ties;
  for (const part of parts) {
    const bits = new Uint32Array(part.buffer, part.byteOffset, part.length);
    for (let i = 0; i < bits.length; i++) {
      const u = bits[i] & 0x7fffffff;
      if (u > threshold || (u === threshold && left-- > 0)) continue;
      part[i] = 0;
    }
  }
}
