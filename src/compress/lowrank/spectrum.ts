import { UsageError } from "../../core/index.js";
import type { Layer, LowRankFactors, Spectrum } from "../contract.js";
import { svd } from "../linalg/index.js";

/**
 * The decomposition of W·S for an input transform S, with factors of W itself: A = U·Σ^½, B = Σ^½·Vᵀ·S⁻¹.
 * @param scaled f64 [rows, cols], W·S
 * @param undo v ← v·S⁻¹ for one row vector, in place
 */
export function spectrumOf(
  scaled: ArrayLike<number>,
  { rows, cols }: Layer,
  undo: (v: Float64Array) => void,
): Spectrum {
  const { singularValues, left, right } = svd(scaled, rows, cols);
  return {
    singularValues,
    factors(rank: number): LowRankFactors {
      if (!Number.isInteger(rank) || rank < 1 || rank > singularValues.length) {
        throw new UsageError(`rank ${rank} is not between 1 and ${singularValues.length}`);
      }
      const a = new Float32Array(rows * rank);
      const b = new Float32Array(rank * cols);
      for (let i = 0; i < rank; i++) {
        const root = Math.sqrt(singularValues[i]);
        for (let r = 0; r < rows; r++) a[r * rank + i] = left[i * rows + r] * root;
        const v = right.slice(i * cols, (i + 1) * cols);
        undo(v);
        for (let c = 0; c < cols; c++) b[i * cols + c] = v[c] * root;
      }
      return { rank, left: a, right: b };
    },
  };
}
