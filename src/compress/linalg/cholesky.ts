import { addProductTransposed, depthTile, view } from "./matmul.js";

const panel = 48;

/**
 * Cholesky factor of a symmetric positive definite matrix, in place: a = L·Lᵀ. Reads the lower triangle of f64 [n, n] and
 * leaves L there; the upper one is of no use afterwards.
 * @returns false when the matrix is not positive definite (its contents are then useless).
 */
export function choleskyInPlace(a: Float64Array, n: number): boolean {
  for (let p0 = 0; p0 < n; p0 += panel) {
    const p1 = Math.min(n, p0 + panel);
    // Everything the columns before the panel contribute to it, then the panel by itself.
    addProductTransposed(-1, view(a, n, p0), view(a, n, p0), view(a, n, p0, p0), n - p0, p1 - p0, p0);
    for (let i = p0; i < n; i++) {
      const last = Math.min(i, p1 - 1);
      for (let j = p0; j <= last; j++) {
        let sum = a[i * n + j];
        for (let k = p0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
        if (i !== j) a[i * n + j] = sum / a[j * n + j];
        else if (sum > 0 && sum < Number.POSITIVE_INFINITY) a[i * n + i] = Math.sqrt(sum);
        else return false;
      }
    }
  }
  return true;
}

/**
 * The transposed inverse of a lower triangular matrix: upper triangular f64 [n, n] with zeros below the diagonal.
 * @param l f64 [n, n]; only its lower triangle is read.
 */
export function inverseTransposedLower(l: Float64Array, n: number): Float64Array {
  // Row j of the result y is column j of L⁻¹: y[j, i] = (δ_ij − Σ_{j ≤ k < i} y[j, k]·L[i, k]) / L[i, i].
  const y = new Float64Array(n * n);
  for (let p0 = 0; p0 < n; p0 += panel) {
    const p1 = Math.min(n, p0 + panel);
    // Row j is zero before column j. Blocks that begin with a tile of the depth leave the sums of all others as they were.
    for (let j = 0; j < p0; j += depthTile) {
      const rows = Math.min(depthTile, p0 - j);
      addProductTransposed(-1, view(y, n, j, j), view(l, n, p0, j), view(y, n, j, p0), rows, p1 - p0, p0 - j);
    }
    for (let j = 0; j < p1; j++) {
      for (let i = Math.max(j, p0); i < p1; i++) {
        let sum = i === j ? 1 : y[j * n + i];
        for (let k = Math.max(j, p0); k < i; k++) sum -= y[j * n + k] * l[i * n + k];
        y[j * n + i] = sum / l[i * n + i];
      }
    }
  }
  return y;
}

/** Solves L·Lᵀ·x = b in place; `l` f64 [n, n] from `choleskyInPlace`, `x` f64 [n] holds b. */
export function solveCholesky(l: Float64Array, n: number, x: Float64Array): void {
  for (let i = 0; i < n; i++) {
    let sum = x[i];
    for (let k = 0; k < i; k++) sum -= l[i * n + k] * x[k];
    x[i] = sum / l[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    x[i] /= l[i * n + i];
    for (let k = 0; k < i; k++) x[k] -= l[i * n + k] * x[i];
  }
}
