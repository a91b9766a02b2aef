import type { Layer, LowRankFactors, Shape, Spectrum } from "../contract.js";

/** Numbers stored by factors of a rank. */
export const factorSize = ({ rows, cols }: Shape, rank: number): number => rank * (rows + cols);

/**
 * The largest multiple of `align` whose factors hold at most `keepRatio` of the matrix's numbers.
 * @returns at least `align`
 */
export function rankForRatio({ rows, cols }: Shape, keepRatio: number, align = 1): number {
  const rank = Math.floor((keepRatio * rows * cols) / (rows + cols) + 1e-9);
  return roundedDown(rank, align);
}

const roundedDown = (rank: number, align: number) => Math.max(align, rank - (rank % align));

/**
 * Shares one budget among several matrices: components are taken in the order of explained share of the matrix's own
 * energy (Σ σ²) per stored number. A matrix whose factors would be no smaller than itself stays dense.
 * @param budget numbers stored in all, dense matrices included
 * @param align ranks are rounded down to multiples of it
 * @returns a rank for each matrix, or "dense"
 */
export function shareRanks(
  matrices: readonly { shape: Shape; spectrum: Pick<Spectrum, "singularValues"> }[],
  budget: number,
  align = 1,
): (number | "dense")[] {
  const ranks = matrices.map(() => 1);
  const dense = matrices.map(() => false);
  const components = matrices.flatMap(({ shape, spectrum: { singularValues } }, matrix) => {
    const energy = singularValues.reduce((sum, s) => sum + s * s, 0);
    const worth = (i: number) => (energy > 0 ? singularValues[i] ** 2 / energy / (shape.rows + shape.cols) : 0);
    return Array.from({ length: singularValues.length - 1 }, (_, i) => ({ matrix, index: i + 1, worth: worth(i + 1) }));
  });
  components.sort((a, b) => b.worth - a.worth || a.matrix - b.matrix || a.index - b.index);

  let left = budget - matrices.reduce((sum, { shape }) => sum + factorSize(shape, 1), 0);
  for (const { matrix } of components) {
    if (dense[matrix]) continue;
    const { shape } = matrices[matrix];
    const full = shape.rows * shape.cols;
    const now = factorSize(shape, ranks[matrix]);
    const next = Math.min(full, factorSize(shape, ranks[matrix] + 1));
    if (next - now > left) break;
    left -= next - now;
    ranks[matrix]++;
    dense[matrix] = next === full;
  }
  return ranks.map((rank, i) => (dense[i] ? "dense" : roundedDown(rank, align)));
}

/** f32 [rows, cols]: left · right. */
export function productOf({ rows, cols }: Shape, { rank, left, right }: LowRankFactors): Float32Array {
  const out = new Float32Array(rows * cols);
  const sums = new Float64Array(cols);
  for (let r = 0; r < rows; r++) {
    sums.fill(0);
    for (let k = 0; k < rank; k++) {
      const share = left[r * rank + k];
      for (let c = 0; c < cols; c++) sums[c] += share * right[k * cols + c];
    }
    out.set(sums, r * cols);
  }
  return out;
}

/** What factors leave of a layer, as a layer to be pruned: low rank plus sparse residual. */
export function residualOf(layer: Layer, factors: LowRankFactors): Layer {
  const product = productOf(layer, factors);
  return { weight: layer.weight.map((w, i) => w - product[i]), rows: layer.rows, cols: layer.cols };
}
