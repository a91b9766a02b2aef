/**
 * A matrix W [rows, cols] that is stored as small tensors whose product it is. Everything here is about shapes and numbers of
 * one matrix; nothing knows files, models or devices.
 */

/** How a matrix is made of its parts, apart from their numbers. */
export type Factors = ProductFactors | TensorTrain | Tucker | KroneckerSum | Word2ket | Morphemes;

/** W = left [rows, rank] · right [rank, cols]. */
export interface ProductFactors {
  kind: "product";
  rank: number;
}

/**
 * Tensor train of a matrix (Oseledets 2011; Novikov et al. 2015, arXiv:1509.06569): entry (i, j), with the digits i₁ … i_d of i
 * in base `rowModes` and j₁ … j_d of j in base `colModes`, the first the most significant, is the product of the matrices
 * core.k[·, i_k, j_k, ·]. Part core.k is [ranks[k − 1], rowModes[k], colModes[k], ranks[k]], with ranks of 1 at both ends.
 */
export interface TensorTrain {
  kind: "tensor-train";
  rowModes: readonly number[];
  colModes: readonly number[];
  /** d − 1 of them. */
  ranks: readonly number[];
  /**
   * Rows that lie in part `dense` [rows, cols] and not in the train, which makes the others (hybrid tensor train: Li et al. 2022,
   * Hypoformer).
   */
  dense?: { readonly first: number; readonly rows: number };
}

/**
 * Tucker's decomposition of the tensor with all row digits and then all column digits: `core` [rowRanks …, colRanks …], multiplied
 * along each axis with rows.k [rowModes[k], rowRanks[k]] or cols.k [colModes[k], colRanks[k]].
 */
export interface Tucker {
  kind: "tucker";
  rowModes: readonly number[];
  colModes: readonly number[];
  rowRanks: readonly number[];
  colRanks: readonly number[];
}

/**
 * Sum of `rank` Kronecker products (word2ketXS: Panahi et al. 2020, arXiv:1911.04975): W = Σ_r ⊗_k factor.k[r], part factor.k
 * [rank, rowModes[k], colModes[k]].
 */
export interface KroneckerSum {
  kind: "kronecker";
  rowModes: readonly number[];
  colModes: readonly number[];
  rank: number;
}

/** Every row its own sum of Kronecker products of vectors (word2ket): row i = Σ_r ⊗_k leaf.k[r, i], leaf.k [rank, rows, colModes[k]]. */
export interface Word2ket {
  kind: "word2ket";
  colModes: readonly number[];
  rank: number;
}

/**
 * Rows made of morphemes (MorphTE: Gan et al. 2022): row i = Σ_r ⊗_k table[r, index[i, k]], cut off at `cols`; `table` [rank,
 * morphemes, width], `index` [rows, order] of unsigned integers. With `norm`, then (row − mean) / √(variance + 1e-5) · norm.weight
 * + norm.bias.
 */
export interface Morphemes {
  kind: "morphemes";
  order: number;
  morphemes: number;
  width: number;
  rank: number;
  norm: boolean;
}

/** Rows and columns of a matrix, as it is multiplied: out, in. */
export interface MatrixShape {
  readonly rows: number;
  readonly cols: number;
}

/** Shape of one part; its numbers are floats, or unsigned integers below `below`. */
export interface PartShape {
  readonly shape: readonly number[];
  readonly below?: number;
}

/** Numbers of all parts, by name, row-major. */
export type FactorParts = Readonly<Record<string, Float32Array | Uint32Array>>;

/** Writes row `row` of W to `out` [cols]. */
export type RowWriter = (row: number, out: Float32Array | Float64Array) => void;

/**
 * W·x as products with small matrices. What goes in is [n, cols]; every step reads what there is as rows of `matrix.cols`,
 * multiplies each of them (y = matrix · x) and then brings the new axis to the front: per row of n, [lead, turned, run] becomes
 * [turned, lead, run]. What comes out is [n, at least rows]: further columns are nobody's.
 */
export interface ChainStep {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  /** f32 [rows, cols] */
  readonly values: Float32Array;
  readonly turned: number;
  readonly run: number;
}

/** What has to be known of a kind of factors. */
export interface FactorKind<F extends Factors = Factors> {
  /** What keeps these factors from making a matrix of that shape, in words. */
  problems(factors: F, shape: MatrixShape): string[];
  parts(factors: F, shape: MatrixShape): Readonly<Record<string, PartShape>>;
  rowWriter(factors: F, shape: MatrixShape, parts: FactorParts): RowWriter;
  /** Left out: its rows can be made, and nothing can be multiplied with it short of that, or as `scoreProblem` says. */
  chain?(factors: F, shape: MatrixShape, parts: FactorParts): ChainStep[];
  /**
   * Present where products share what rows have in common (`Backend.morphemeScores`) in the place of a chain: why they cannot be run,
   * undefined where they can.
   */
  scoreProblem?(factors: F): string | undefined;
}
