import { addProductTransposed, type InverseFactor, view } from "./linalg/index.js";
import { pruneSmallestOfGroup } from "./select.js";

/** Rounds weights to a grid while a sweep passes over them. */
export interface SweepQuantizer {
  /** Called for every row when the sweep reaches column `col`, before the column is rounded. */
  reach(row: number, col: number, weights: Float64Array): void;
  /** The grid value for an entry. */
  round(row: number, col: number, value: number): number;
}

export interface SweepOptions {
  /** Columns per panel; compensation of columns behind the panel is done once per panel. */
  blockSize: number;
  /** Marks zeros in `keep` for the columns [start, end) of the current values, when the sweep reaches them. */
  choosePanel?(weights: Float64Array, keep: Uint8Array, start: number, end: number): void;
  /** Keeps `keep` of every `group` columns of a row, chosen when the sweep reaches the first of them. */
  groups?: { keep: number; group: number };
  quantizer?: SweepQuantizer;
}

/**
 * The sweep shared by SparseGPT and GPTQ. Columns are frozen from left to right, each pruned or rounded; the error of a
 * column is made good, as well as the inverse Hessian allows, by the columns to its right. All rows share one factor.
 * Panels of columns are finished one by one and the rest is corrected with one matrix product per panel.
 *
 * @param weights f64 [rows, cols], overwritten by the result; columns of dead inputs must be 0
 * @param keep u8 [rows, cols], 1 = keep; entries that are 0 already stay pruned
 * @returns ½ Σ e², which equals ½ tr(D·H·Dᵀ) for the total change D and the damped H
 */
export function compensatedSweep(
  weights: Float64Array,
  keep: Uint8Array,
  rows: number,
  cols: number,
  factor: InverseFactor,
  options: SweepOptions,
): number {
  const { blockSize, choosePanel, groups, quantizer } = options;
  const { transposedU } = factor;
  const u = new Float64Array(blockSize * blockSize);
  const errors = new Float64Array(rows * blockSize);
  const scores = new Float64Array(groups?.group ?? 0);
  const groupKeep = new Uint8Array(groups?.group ?? 0);
  let loss = 0;

  for (let start = 0; start < cols; start += blockSize) {
    const width = Math.min(blockSize, cols - start);
    for (let i = 0; i < width; i++) {
      for (let j = i; j < width; j++) u[i * blockSize + j] = transposedU[(start + j) * cols + start + i];
    }
    choosePanel?.(weights, keep, start, start + width);

    for (let r = 0; r < rows; r++) {
      const row = r * cols + start;
      for (let i = 0; i < width; i++) {
        if (groups !== undefined && (start + i) % groups.group === 0) {
          let alreadyPruned = 0;
          for (let j = 0; j < groups.group; j++) {
            scores[j] = (weights[row + i + j] / u[(i + j) * blockSize + i + j]) ** 2;
            groupKeep[j] = keep[row + i + j];
            alreadyPruned += 1 - groupKeep[j];
          }
          const count = Math.max(0, groups.group - groups.keep - alreadyPruned);
          pruneSmallestOfGroup(scores, 0, 1, groups.group, count, groupKeep);
          keep.set(groupKeep, row + i);
        }
        quantizer?.reach(r, start + i, weights);
        const before = weights[row + i];
        let after = keep[row + i] === 1 ? before : 0;
        if (quantizer !== undefined) after = quantizer.round(r, start + i, after);
        const uRow = i * blockSize;
        const error = (before - after) / u[uRow + i];
        errors[r * blockSize + i] = error;
        weights[row + i] = after;
        if (error === 0) continue;
        loss += error * error;
        for (let j = i + 1; j < width; j++) weights[row + j] -= error * u[uRow + j];
      }
    }

    const end = start + width;
    addProductTransposed(
      -1,
      view(errors, blockSize),
      view(transposedU, cols, end, start),
      view(weights, cols, 0, end),
      rows,
      cols - end,
      width,
    );
  }
  return loss / 2;
}
