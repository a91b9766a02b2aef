import { UsageError } from "../../core/index.js";

/**
 * Zeroes all but the `keep` values of the largest magnitude; of equal magnitudes the lower index stays. Fewer stay only
 * where fewer are not 0. A radix select over the magnitude bits, O(n), so no sort and no effect of the data on the time.
 * @param values f32 [n], finite
 * @returns f32 [n]
 */
export function keepLargest(values: Float32Array, keep: number): Float32Array {
  if (!(keep >= 0)) throw new UsageError(`cannot keep ${keep} values`);
  if (keep >= values.length) return values.slice();
  const out = new Float32Array(values.length);
  if (keep < 1) return out;
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const { pattern, ties } = selectMagnitude(bits, Math.floor(keep));
  let tiesLeft = ties;
  for (let i = 0; i < values.length; i++) {
    const magnitude = bits[i] & 0x7fffffff;
    if (magnitude > pattern || (magnitude === pattern && tiesLeft-- > 0)) out[i] = values[i];
  }
  return out;
}

export interface DynamicSparsityOptions {
  /** Share of zeros in [0, 1]: ⌊n · (1 − sparsity)⌋ values stay. */
  sparsity: number;
  /**
   * "token" selects in every row alone and is the safe choice; "tensor" selects over all rows at once, where later tokens
   * and other sequences change what an earlier token keeps.
   */
  scope: "token" | "tensor";
}

/**
 * Top-k activation sparsity by ratio: what stays is the largest part of a row or tensor, not what exceeds a threshold.
 * @param values f32 [rows, cols], row-major, finite
 * @returns f32 [rows, cols]
 */
export function sparsifyByRatio(values: Float32Array, cols: number, options: DynamicSparsityOptions): Float32Array {
  const width = options.scope === "tensor" ? values.length : cols;
  const keep = Math.floor(width * (1 - options.sparsity));
  const out = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += width) {
    out.set(keepLargest(values.subarray(start, start + width), keep), start);
  }
  return out;
}

/**
 * Magnitude bits of the k-th largest value, and how many values of exactly this magnitude belong to the k largest.
 * Three passes of 11, 11 and 9 bits: bit patterns of finite floats order like their magnitudes.
 */
function selectMagnitude(bits: Uint32Array, k: number): { pattern: number; ties: number } {
  const counts = new Uint32Array(2048);
  let pattern = 0;
  let left = k;
  for (const { shift, width } of [
    { shift: 20, width: 11 },
    { shift: 9, width: 11 },
    { shift: 0, width: 9 },
  ]) {
    counts.fill(0);
    // The bits above this digit must equal what earlier passes chose; the first digit has none above it.
    const above = shift + width;
    for (let i = 0; i < bits.length; i++) {
      const magnitude = bits[i] & 0x7fffffff;
      if (above >= 31 || magnitude >>> above === pattern >>> above) counts[(magnitude >>> shift) & (2 ** width - 1)]++;
    }
    let digit = 2 ** width - 1;
    while (counts[digit] < left) left -= counts[digit--];
    pattern |= digit << shift;
  }
  return { pattern, ties: left };
}
