import { RarefyError } from "../../core/index.js";
import { choleskyInPlace, inverseTransposedLower } from "./cholesky.js";
import { multiplyTransposed } from "./matmul.js";

/** What every second-order method needs of a layer's Hessian. */
export interface InverseFactor {
  /**
   * f64 [n, n], lower triangular: the transpose of the upper U with UᵀU = H⁻¹, where H is the damped Hessian. Column i of
   * U starts at row i: U[i, i]² is the inverse curvature of input i once inputs before i are frozen.
   */
  transposedU: Float64Array;
  /** f64 [n]: the diagonal of the damped H. */
  diagonal: Float64Array;
  /** 1 for inputs that were always zero: their weights carry no information. */
  dead: Uint8Array;
  /** What was added to the diagonal, in the units of H. */
  damping: number;
}

/**
 * Factors H = gram · scale: dead inputs get curvature 1, `dampingShare` of the mean curvature is added to the diagonal
 * (ten times more after each failure, up to the mean itself), and the Cholesky factor of H⁻¹ follows without forming
 * H⁻¹: with rows and columns reversed, L = chol(H), the reversal of L⁻ᵀ is Uᵀ.
 * @param gram symmetric [n, n], Σ x·xᵀ
 * @throws RarefyError when H is not finite or cannot be made positive definite.
 */
export function inverseFactor(
  gram: Float64Array | Float32Array,
  n: number,
  scale: number,
  dampingShare: number,
): InverseFactor {
  const diagonal = new Float64Array(n);
  const dead = new Uint8Array(n);
  let mean = 0;
  for (let i = 0; i < n; i++) {
    const curvature = gram[i * n + i] * scale;
    if (!Number.isFinite(curvature)) throw new RarefyError(`the Hessian is not finite at input ${i}`);
    if (curvature === 0) dead[i] = 1;
    diagonal[i] = curvature === 0 ? 1 : curvature;
    mean += diagonal[i] / n;
  }
  for (let share = dampingShare; share <= 1; share = share === 0 ? 1e-6 : share * 10) {
    const damping = share * mean;
    const reversed = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      const row = (n - 1 - i) * n;
      for (let j = i; j < n; j++) reversed[row + n - 1 - j] = gram[i * n + j] * scale;
      reversed[row + n - 1 - i] = diagonal[i] + damping;
    }
    if (!choleskyInPlace(reversed, n)) continue;
    return {
      transposedU: inverseTransposedLower(reversed, n).reverse(),
      diagonal: diagonal.map((d) => d + damping),
      dead,
      damping,
    };
  }
  throw new RarefyError("the Hessian is not positive definite even with its mean diagonal added");
}

/** H⁻¹ = UᵀU, symmetric f64 [n, n]. */
export function inverseHessian(factor: InverseFactor, n: number): Float64Array {
  return multiplyTransposed(factor.transposedU, factor.transposedU, n, n, n);
}

/** f64 [n]: the diagonal of H⁻¹. */
export function inverseDiagonal(factor: InverseFactor, n: number): Float64Array {
  const { transposedU } = factor;
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k <= i; k++) out[i] += transposedU[i * n + k] ** 2;
  }
  return out;
}
