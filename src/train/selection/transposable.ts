import { UsageError } from "../../core/index.js";
import type { FloatArray } from "../values.js";

/** The six rows with two of four set. */
const rows = [0b0011, 0b0101, 0b0110, 0b1001, 0b1010, 0b1100];

/** The 90 masks of a 4 × 4 block with two entries in every row and every column, as 16 bits, row 0 lowest. */
export const transposablePatterns: readonly number[] = rows.flatMap((a) =>
  rows.flatMap((b) =>
    rows.flatMap((c) =>
      rows
        .filter((d) => [0, 1, 2, 3].every((column) => [a, b, c, d].filter((row) => (row >> column) & 1).length === 2))
        .map((d) => a | (b << 4) | (c << 8) | (d << 12)),
    ),
  ),
);

const keptPositions = Uint8Array.from(
  transposablePatterns.flatMap((pattern) => Array.from({ length: 16 }, (_, i) => i).filter((i) => (pattern >> i) & 1)),
);

/**
 * Keeps, in every 4 × 4 block, the pattern with the largest sum of magnitudes: 2:4 along rows and along columns, so that the
 * same mask serves W and Wᵀ (Hu et al. 2024, arXiv:2404.01847).
 * @throws UsageError when a side is no multiple of 4
 */
export function transposableMask(weight: FloatArray, [height, width]: readonly number[], mask: Uint8Array): void {
  if (height % 4 !== 0 || width % 4 !== 0) {
    throw new UsageError(`a ${height} × ${width} matrix cannot be cut into blocks of 4 × 4`);
  }
  const block = new Float64Array(16);
  for (let r = 0; r < height; r += 4) {
    for (let c = 0; c < width; c += 4) {
      for (let i = 0; i < 16; i++) block[i] = Math.abs(weight[(r + (i >> 2)) * width + c + (i & 3)]);
      let best = 0;
      let bestSum = -1;
      for (let p = 0; p < transposablePatterns.length; p++) {
        let sum = 0;
        for (let k = p * 8; k < p * 8 + 8; k++) sum += block[keptPositions[k]];
        if (sum > bestSum) {
          bestSum = sum;
          best = p;
        }
      }
      const pattern = transposablePatterns[best];
      for (let i = 0; i < 16; i++) mask[(r + (i >> 2)) * width + c + (i & 3)] = (pattern >> i) & 1;
    }
  }
}
