import {
  addProductTransposed,
  choleskyInPlace,
  type InverseFactor,
  inverseHessian,
  solveCholesky,
  view,
} from "./linalg/index.js";

/**
 * Removes whole input columns and lets the others make good for them as well as they can: with P the removed columns,
 * W ← W − W_P·([H⁻¹]_PP)⁻¹·[H⁻¹]_P. This is the exact least-squares solution, because all rows lose the same columns.
 * @param weights f64 [rows, cols], overwritten; removed columns become exactly 0
 * @param removed ascending column indices
 * @returns ½ tr(D·H·Dᵀ) of the change D
 */
export function removeColumns(
  weights: Float64Array,
  rows: number,
  cols: number,
  factor: InverseFactor,
  removed: readonly number[],
): number {
  const count = removed.length;
  const inverse = inverseHessian(factor, cols);
  const block = new Float64Array(count * count);
  const strip = new Float64Array(cols * count);
  for (let p = 0; p < count; p++) {
    for (let q = 0; q < count; q++) block[p * count + q] = inverse[removed[p] * cols + removed[q]];
    for (let c = 0; c < cols; c++) strip[c * count + p] = inverse[c * cols + removed[p]];
  }
  choleskyInPlace(block, count);
  const solved = new Float64Array(rows * count);
  let loss = 0;
  for (let r = 0; r < rows; r++) {
    const x = solved.subarray(r * count, (r + 1) * count);
    for (let p = 0; p < count; p++) x[p] = weights[r * cols + removed[p]];
    solveCholesky(block, count, x);
    for (let p = 0; p < count; p++) loss += x[p] * weights[r * cols + removed[p]];
  }
  addProductTransposed(-1, view(solved, count), view(strip, count), view(weights, cols), rows, cols, count);
  for (let r = 0; r < rows; r++) for (const c of removed) weights[r * cols + c] = 0;
  return loss / 2;
}

/**
 * The best values of one row's kept weights on a given mask: minimises (ŵ − w)·H·(ŵ − w)ᵀ by one solve, O(kept³).
 * The reference that every update rule is measured against.
 * @param row f64 [cols]; @param keep 1 = keep; @param hessian symmetric f64 [cols, cols], positive definite
 */
export function leastSquaresRow(
  row: ArrayLike<number>,
  keep: ArrayLike<number>,
  hessian: ArrayLike<number>,
): Float64Array {
  const cols = row.length;
  const kept = Array.from({ length: cols }, (_, i) => i).filter((i) => keep[i] === 1);
  const n = kept.length;
  const system = new Float64Array(n * n);
  const x = new Float64Array(n);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < n; b++) system[a * n + b] = hessian[kept[a] * cols + kept[b]];
    for (let c = 0; c < cols; c++) x[a] += hessian[kept[a] * cols + c] * row[c];
  }
  choleskyInPlace(system, n);
  solveCholesky(system, n, x);
  const out = new Float64Array(cols);
  for (let a = 0; a < n; a++) out[kept[a]] = x[a];
  return out;
}
