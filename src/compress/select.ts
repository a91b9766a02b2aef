import { UsageError } from "../core/index.js";
import { findThreshold, magnitudeOf } from "../tensor/internal.js";
import { type Pattern, type Scope, shapeProblems, zerosFor } from "./pattern.js";

/**
 * Choosing what to prune from scores. A score is f32, finite and ≥ 0; low ones go first and among equals the lower index
 * goes first, as in a stable ascending sort, so that results do not depend on the machine.
 *
 * "exact" prunes ⌊n·s⌋ of n. "threshold" is the convention of the SparseGPT and Wanda repositories: everything up to and
 * including the score of rank ⌊n·s⌋, so one more and all its ties. "below" spares that score and all its ties. The three
 * differ visibly for magnitude alone: bf16 weights have few values, and a hundredth of them may tie at the threshold.
 */
export const countings = ["exact", "threshold", "below"] as const;
/** One of `countings`. */
export type Counting = (typeof countings)[number];

/**
 * Keep mask for a matrix of scores.
 * @param scores f32 [rows, cols]
 * @param scope of an unstructured or block pattern
 * @returns u8 [rows, cols], 1 = keep
 * @throws UsageError when the shape does not fit the pattern or a score is not finite.
 */
export function selectMask(
  scores: Float32Array,
  rows: number,
  cols: number,
  pattern: Pattern,
  scope: Scope,
  counting: Counting = "exact",
): Uint8Array {
  checkScores(scores);
  const problems = shapeProblems(rows, cols, pattern);
  if (problems.length > 0) throw new UsageError(problems.join("; "));
  if (pattern.type === "nm") return keepOfGroups(scores, rows, cols, pattern);
  if (pattern.type === "neurons" || pattern.type === "heads") {
    throw new UsageError(`${pattern.type} are chosen for a group of matrices, not for one`);
  }
  if (scope === "global") throw new UsageError("a global budget is shared out before single matrices are pruned");
  if (pattern.type === "unstructured") {
    const keep = new Uint8Array(rows * cols).fill(1);
    const run = scope === "row" ? cols : rows * cols;
    for (let start = 0; start < scores.length; start += run) {
      pruneSmallest(scores, start, run, zerosFor(run, pattern.sparsity), keep, counting);
    }
    return keep;
  }
  const [blockRows, blockCols] =
    pattern.type === "block" ? [pattern.rows, pattern.cols] : pattern.type === "rows" ? [1, cols] : [rows, 1];
  const blocks = blockScores(scores, rows, cols, blockRows, blockCols);
  const across = cols / blockCols;
  const keepBlocks = new Uint8Array(blocks.length).fill(1);
  const run = scope === "row" ? across : blocks.length;
  for (let start = 0; start < blocks.length; start += run) {
    pruneSmallest(blocks, start, run, zerosFor(run, pattern.sparsity), keepBlocks, counting);
  }
  const keep = new Uint8Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    const blockRow = Math.floor(r / blockRows) * across;
    for (let c = 0; c < cols; c++) keep[r * cols + c] = keepBlocks[blockRow + Math.floor(c / blockCols)];
  }
  return keep;
}

function checkScores(scores: Float32Array): void {
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  for (let i = 0; i < bits.length; i++) {
    if (bits[i] < 0x7f800000) continue;
    throw new UsageError(`score ${i} is ${scores[i]}; weights and statistics must be finite`);
  }
}

/** f32 [rows / blockRows, cols / blockCols]: the root of the sum of squared scores in each block. */
export function blockScores(
  scores: Float32Array,
  rows: number,
  cols: number,
  blockRows: number,
  blockCols: number,
): Float32Array {
  const across = cols / blockCols;
  const sums = new Float64Array((rows / blockRows) * across);
  for (let r = 0; r < rows; r++) {
    const blockRow = Math.floor(r / blockRows) * across;
    for (let c = 0; c < cols; c++) sums[blockRow + Math.floor(c / blockCols)] += scores[r * cols + c] ** 2;
  }
  return Float32Array.from(sums, Math.sqrt);
}

function keepOfGroups(scores: Float32Array, rows: number, cols: number, pattern: Pattern & { type: "nm" }): Uint8Array {
  const { keep: keepCount, group } = pattern;
  const keep = new Uint8Array(rows * cols).fill(1);
  const alongColumn = pattern.along === "column";
  const step = alongColumn ? cols : 1;
  for (let r = 0; r < rows; r += alongColumn ? group : 1) {
    for (let c = 0; c < cols; c += alongColumn ? 1 : group) {
      pruneSmallestOfGroup(scores, r * cols + c, step, group, group - keepCount, keep);
    }
  }
  return keep;
}

/** Clears `keep` at the `count` lowest of the `length` scores at start, start + step, … (short groups only). */
export function pruneSmallestOfGroup(
  scores: Float32Array | Float64Array,
  start: number,
  step: number,
  length: number,
  count: number,
  keep: Uint8Array,
): void {
  for (let n = 0; n < count; n++) {
    let lowest = -1;
    for (let i = 0, at = start; i < length; i++, at += step) {
      if (keep[at] === 1 && (lowest < 0 || scores[at] < scores[lowest])) lowest = at;
    }
    keep[lowest] = 0;
  }
}

/** Clears `keep` at the `count` lowest of scores[start … start + length). */
export function pruneSmallest(
  scores: Float32Array,
  start: number,
  length: number,
  count: number,
  keep: Uint8Array,
  counting: Counting = "exact",
): void {
  if (counting !== "exact") {
    const { value } = rank(scores, start, length, Math.min(count, length - 1));
    for (let i = start; i < start + length; i++) {
      if (scores[i] < value || (counting === "threshold" && scores[i] === value)) keep[i] = 0;
    }
    return;
  }
  if (count === 0) return;
  const { value, below } = rank(scores, start, length, count - 1);
  let ties = count - below;
  for (let i = start; i < start + length; i++) {
    if (scores[i] < value) keep[i] = 0;
    else if (scores[i] === value && ties-- > 0) keep[i] = 0;
  }
}

/**
 * The score of the given rank (0 = lowest) among scores[start … start + length), and how many are below it. Scores are not
 * negative, so that they are their own magnitudes.
 */
export function rank(
  scores: Float32Array,
  start: number,
  length: number,
  index: number,
): { value: number; below: number } {
  // From the top it is the (length − index)-th.
  const fromTop = length - index;
  const { bits, ties, equal } = findThreshold([scores.subarray(start, start + length)], fromTop);
  const above = fromTop - ties;
  return { value: magnitudeOf(bits), below: length - above - equal };
}
