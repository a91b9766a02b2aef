import { UsageError } from "../core/index.js";

/**
 * The one exact selection of this project: the entries of largest magnitude, exactly as many as asked for. The bits of |x| order like the numbers, so histograms of
 * 11, 10 and 10 of them, from the highest, close in on the s-th largest in three passes; histograms of parts add up, so
 * parts may live anywhere. Ties at the threshold are kept in the order of the parts.
 */
const digitBits = [11, 10, 10] as const;
const valueBits = 31;
const infinityBits = 0x7f800000;

/** Which magnitudes belong to the k largest. */
export interface Threshold {
  /** Bits of the smallest magnitude kept. */
  bits: number;
  /** How many entries equal to it are kept. */
  ties: number;
  /** How many entries are equal to it. */
  equal: number;
}

/** Magnitude as bits without the sign. */
const bitsOf = (part: Float32Array) => new Uint32Array(part.buffer, part.byteOffset, part.length);

/** Finds the threshold over any number of parts; each pass asks for all parts once and keeps 8 KiB. */
export class ThresholdSearch {
  readonly passes = digitBits.length;
  readonly #counts = new Float64Array(1 << 11);
  #pass = 0;
  #prefix = 0;
  #shift = valueBits;
  /** Entries still to be kept among those that share the prefix. */
  #left: number;
  /** Entries that share the prefix. */
  #sharing = 0;

  /** @param count how many entries to keep, at least 1 */
  constructor(count: number) {
    this.#left = count;
  }

  /** Counts one part in the current pass. @throws UsageError on an entry that is not a number */
  add(part: Float32Array): void {
    const bits = bitsOf(part);
    const width = digitBits[this.#pass];
    const low = this.#shift - width;
    const digitMask = (1 << width) - 1;
    const counts = this.#counts;
    if (this.#pass === 0) {
      for (let i = 0; i < bits.length; i++) {
        const u = bits[i] & 0x7fffffff;
        if (u > infinityBits) throw new UsageError(`entry ${i} is not a number, so nothing can be chosen by size`);
        counts[u >>> low]++;
      }
      return;
    }
    const shift = this.#shift;
    const prefix = this.#prefix >>> shift;
    for (let i = 0; i < bits.length; i++) {
      const u = bits[i] & 0x7fffffff;
      if (u >>> shift === prefix) counts[(u >>> low) & digitMask]++;
    }
  }

  /** Ends a pass over all parts. @returns how many entries the next passes still look at */
  endPass(): number {
    const width = digitBits[this.#pass++];
    this.#shift -= width;
    let digit = (1 << width) - 1;
    while (digit > 0 && this.#counts[digit] < this.#left) this.#left -= this.#counts[digit--];
    this.#prefix |= digit << this.#shift;
    this.#sharing = this.#counts[digit];
    this.#counts.fill(0);
    return this.#sharing;
  }

  /** The entries that the next passes look at, copied out of the parts. */
  candidates(parts: readonly Float32Array[], count: number): Float32Array {
    const found = new Uint32Array(count);
    const prefix = this.#prefix >>> this.#shift;
    const shift = this.#shift;
    let at = 0;
    for (const part of parts) {
      const bits = bitsOf(part);
      for (let i = 0; i < bits.length; i++) {
        const u = bits[i] & 0x7fffffff;
        if (u >>> shift === prefix) found[at++] = u;
      }
    }
    return new Float32Array(found.buffer);
  }

  /** After the last pass. */
  get threshold(): Threshold {
    return { bits: this.#prefix, ties: this.#left, equal: this.#sharing };
  }
}

/** The threshold that keeps exactly `count` of all entries of the parts. */
export function findThreshold(parts: readonly Float32Array[], count: number): Threshold {
  const total = parts.reduce((sum, part) => sum + part.length, 0);
  if (!(Number.isSafeInteger(count) && count >= 0 && count <= total)) {
    throw new UsageError(`${count} of ${total} entries cannot be kept`);
  }
  if (count === 0) return { bits: infinityBits + 1, ties: 0, equal: 0 };
  const search = new ThresholdSearch(count);
  for (const part of parts) search.add(part);
  // One bin of the first histogram is a few per cent of the entries, unless many tie.
  const bin = search.candidates(parts, search.endPass());
  for (let pass = 1; pass < search.passes; pass++) {
    search.add(bin);
    search.endPass();
  }
  return search.threshold;
}

/** The magnitude that bits of a `Threshold` stand for. */
export const magnitudeOf = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0];

/**
 * Applies a threshold to the parts in their order.
 * @param masks filled with the keep mask of each part, 1 = keep
 * @returns the ties that later parts may still keep
 */
export function keepAbove(
  parts: readonly Float32Array[],
  { bits: threshold, ties }: Pick<Threshold, "bits" | "ties">,
  masks: readonly Uint8Array[],
): number {
  let left = ties;
  for (const [p, part] of parts.entries()) {
    const bits = bitsOf(part);
    const mask = masks[p];
    for (let i = 0; i < bits.length; i++) {
      const u = bits[i] & 0x7fffffff;
      mask[i] = u > threshold || (u === threshold && left-- > 0) ? 1 : 0;
    }
  }
  return Math.max(0, left);
}

/** Keep masks of the `count` entries of largest magnitude over all parts together. */
export function topS(parts: readonly Float32Array[], count: number): Uint8Array[] {
  const masks = parts.map((part) => new Uint8Array(part.length));
  keepAbove(parts, findThreshold(parts, count), masks);
  return masks;
}
