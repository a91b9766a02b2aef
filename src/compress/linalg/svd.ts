import { symmetricEigen } from "./eigen.js";
import { multiplyTransposed, transposed } from "./matmul.js";
import { dot, rotate } from "./vectors.js";

/** a = Σ_i σ_i · u_i · v_iᵀ. */
export interface Svd {
  /** f64 [k], descending, k = min(rows, cols). */
  singularValues: Float64Array;
  /** f64 [k, rows]: row i is u_i. */
  left: Float64Array;
  /** f64 [k, cols]: row i is v_i. On the longer side of the matrix, vectors of singular value 0 are 0. */
  right: Float64Array;
}

const orthogonal = 1e-13;
const largestSweeps = 40;

/**
 * Singular value decomposition of a row-major [rows, cols] matrix in f64. The eigenvectors of aᵀ·a come close, but lose
 * half the digits of small singular values; one-sided Jacobi rotations, few by then, give them back.
 */
export function svd(a: ArrayLike<number>, rows: number, cols: number): Svd {
  if (rows < cols) {
    const { singularValues, left, right } = svd(transposed(a, rows, cols), cols, rows);
    return { singularValues, left: right, right: left };
  }
  const columns = transposed(a, rows, cols);
  const { vectors } = symmetricEigen(multiplyTransposed(columns, columns, cols, cols, rows), cols);
  // Row i is a·v_i: the vectors are right when these are orthogonal.
  const images = multiplyTransposed(vectors, Float64Array.from(a), cols, rows, cols);
  orthogonaliseRows(images, rows, vectors, cols);

  const norms = Float64Array.from({ length: cols }, (_, i) => Math.sqrt(dot(images, i * rows, images, i * rows, rows)));
  const order = Array.from(norms.keys()).sort((p, q) => norms[q] - norms[p] || p - q);
  const left = new Float64Array(cols * rows);
  const right = new Float64Array(cols * cols);
  order.forEach((from, to) => {
    right.set(vectors.subarray(from * cols, (from + 1) * cols), to * cols);
    if (norms[from] === 0) return;
    for (let r = 0; r < rows; r++) left[to * rows + r] = images[from * rows + r] / norms[from];
  });
  return { singularValues: Float64Array.from(order, (i) => norms[i]), left, right };
}

/** Rotates pairs of rows of `images` [n, length] until all are orthogonal, and the rows of `vectors` [n, n] along. */
function orthogonaliseRows(images: Float64Array, length: number, vectors: Float64Array, n: number): void {
  const squares = new Float64Array(n);
  for (let sweep = 0; sweep < largestSweeps; sweep++) {
    let largest = 0;
    for (let i = 0; i < n; i++) {
      squares[i] = dot(images, i * length, images, i * length, length);
      largest = Math.max(largest, squares[i]);
    }
    // Rows below this are rounding noise of the large ones, and would never come to rest.
    const noise = largest * Number.EPSILON ** 2;
    let rotated = false;
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        if (squares[p] <= noise || squares[q] <= noise) continue;
        const product = dot(images, p * length, images, q * length, length);
        if (Math.abs(product) <= orthogonal * Math.sqrt(squares[p] * squares[q])) continue;
        rotated = true;
        const zeta = (squares[q] - squares[p]) / (2 * product);
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        rotate(images, p * length, q * length, length, cosine, cosine * tangent);
        rotate(vectors, p * n, q * n, n, cosine, cosine * tangent);
        squares[p] = Math.max(0, squares[p] - tangent * product);
        squares[q] += tangent * product;
      }
    }
    if (!rotated) return;
  }
}
