import { UsageError } from "../../core/index.js";
import { topS } from "../../tensor/internal.js";

/**
 * Zeroes all but the `keep` values of the largest magnitude; of equal magnitudes the lower index stays. Fewer stay only
 * where fewer are not 0. O(n), whatever the data.
 * @param values f32 [n], finite
 * @returns f32 [n]
 */
export function keepLargest(values: Float32Array, keep: number): Float32Array {
  if (!(keep >= 0)) throw new UsageError(`cannot keep ${keep} values`);
  if (keep >= values.length) return values.slice();
  const out = new Float32Array(values.length);
  if (keep < 1) return out;
  const mask = topS([values], Math.floor(keep))[0];
  for (let i = 0; i < values.length; i++) if (mask[i] === 1) out[i] = values[i];
  return out;
}

/** How many values stay, and among which they are chosen. */
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
