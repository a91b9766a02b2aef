import { findThreshold } from "./topS.js";

/**
 * Zeroes all but the `count` entries of largest magnitude over all parts together, in place.
 * @param masks filled: 1 where an entry is not zero afterwards
 */
export function hardThreshold(parts: readonly Float32Array[], count: number, masks: readonly Uint8Array[]): void {
  const { bits: threshold, ties } = findThreshold(parts, count);
  let left = ties;
  for (const [p, part] of parts.entries()) {
    const mask = masks[p];
    const bits = new Uint32Array(part.buffer, part.byteOffset, part.length);
    for (let i = 0; i < bits.length; i++) {
      const u = bits[i] & 0x7fffffff;
      const keep = u > threshold || (u === threshold && left-- > 0);
      if (!keep) part[i] = 0;
      mask[i] = keep && u !== 0 ? 1 : 0;
    }
  }
}
