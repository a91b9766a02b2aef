import { RarefyError } from "../../core/index.js";
import { dot, rotate } from "./vectors.js";

export interface Eigen {
  /** f64 [n], in no order. */
  values: Float64Array;
  /** f64 [n, n]: row i is the unit eigenvector of values[i]. */
  vectors: Float64Array;
}

const largestIterations = 60;

/**
 * Eigenvalues and eigenvectors of a symmetric f64 [n, n] (both triangles): Householder reflections to tridiagonal form,
 * then implicit QL rotations. All inner loops run along rows.
 * @param a overwritten
 */
export function symmetricEigen(a: Float64Array, n: number): Eigen {
  const diagonal = new Float64Array(n);
  const beside = new Float64Array(n);
  const scales = tridiagonalise(a, n, diagonal, beside);
  const vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    vectors[i * n + i] = 1;
    for (let k = Math.min(i - 1, n - 3); k >= 0; k--) {
      const factor = scales[k] * dot(a, k * n + k + 1, vectors, i * n + k + 1, n - k - 1);
      for (let c = k + 1; c < n; c++) vectors[i * n + c] -= factor * a[k * n + c];
    }
  }
  diagonalise(diagonal, beside, vectors, n);
  return { values: diagonal, vectors };
}

/**
 * Leaves Householder vectors in the rows of `a`, right of the diagonal; reflection k is I − scales[k]·v·vᵀ.
 * @param beside becomes the elements next to the diagonal: beside[k] couples k and k + 1
 */
function tridiagonalise(a: Float64Array, n: number, diagonal: Float64Array, beside: Float64Array): Float64Array {
  const scales = new Float64Array(n);
  const w = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    diagonal[k] = a[k * n + k];
    const v = k * n + k + 1;
    const size = n - k - 1;
    if (size < 2) {
      if (size === 1) beside[k] = a[v];
      continue;
    }
    const norm = Math.sqrt(dot(a, v, a, v, size));
    if (norm === 0) continue;
    const first = a[v];
    beside[k] = first > 0 ? -norm : norm;
    a[v] = first - beside[k];
    const scale = 1 / (norm * (norm + Math.abs(first)));
    scales[k] = scale;
    // A ← A − v·wᵀ − w·vᵀ with w = scale·A·v − ½·scale²·(vᵀ·A·v)·v.
    for (let i = 0; i < size; i++) w[i] = scale * dot(a, (k + 1 + i) * n + k + 1, a, v, size);
    const half = (scale * dot(a, v, w, 0, size)) / 2;
    for (let i = 0; i < size; i++) w[i] -= half * a[v + i];
    for (let i = 0; i < size; i++) {
      const row = (k + 1 + i) * n + k + 1;
      const vi = a[v + i];
      const wi = w[i];
      for (let j = 0; j < size; j++) a[row + j] -= vi * w[j] + wi * a[v + j];
    }
  }
  return scales;
}

/** Implicit QL with Wilkinson's shift: `d` becomes the eigenvalues, the rows of `vectors` are rotated along. */
function diagonalise(d: Float64Array, e: Float64Array, vectors: Float64Array, n: number): void {
  for (let low = 0; low < n; low++) {
    for (let iteration = 0; ; iteration++) {
      let high = low;
      while (high < n - 1 && Math.abs(e[high]) > Number.EPSILON * (Math.abs(d[high]) + Math.abs(d[high + 1]))) high++;
      if (high === low) break;
      if (iteration === largestIterations) throw new RarefyError("eigenvalues do not converge: is the matrix finite?");
      let g = (d[low + 1] - d[low]) / (2 * e[low]);
      const root = Math.sqrt(g * g + 1);
      g = d[high] - d[low] + e[low] / (g + (g < 0 ? -root : root));
      let sine = 1;
      let cosine = 1;
      let shift = 0;
      let i = high - 1;
      for (; i >= low; i--) {
        const f = sine * e[i];
        const b = cosine * e[i];
        const r = Math.sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1] -= shift;
          break;
        }
        sine = f / r;
        cosine = g / r;
        g = d[i + 1] - shift;
        const t = (d[i] - g) * sine + 2 * cosine * b;
        shift = sine * t;
        d[i + 1] = g + shift;
        g = cosine * t - b;
        rotate(vectors, i * n, (i + 1) * n, n, cosine, sine);
      }
      if (i < low) {
        d[low] -= shift;
        e[low] = g;
      }
      e[high] = 0;
    }
  }
}
