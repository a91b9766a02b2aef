import type { FactorParts, Factors, Tucker } from "../../tensor/index.js";
import { balancedModes, productOfModes } from "../../tensor/internal.js";
import type { Shape } from "../contract.js";
import { svd } from "../linalg/index.js";

/** A matrix as its factors, with what was left out of it. */
export interface FittedFactors {
  factors: Factors;
  parts: FactorParts;
}

/** Row and column modes of one matrix. */
export interface Modes {
  rowModes: readonly number[];
  colModes: readonly number[];
}

export const modesOf = ({ rows, cols }: Shape, order: number): Modes => ({
  rowModes: balancedModes(rows, order, false),
  colModes: balancedModes(cols, order, true),
});

/**
 * The entries of W [rows, cols] as the tensor with axes (i₁, j₁) … (i_d, j_d), rows beyond the last as zeros.
 * @returns f64 [Π rowModes[k] · colModes[k]]
 */
export function interleaved(
  weight: ArrayLike<number>,
  { rows, cols }: Shape,
  { rowModes, colModes }: Modes,
): Float64Array {
  const order = rowModes.length;
  // Places of a digit of the row, and of the column, in the tensor.
  const rowSteps = new Array<number>(order);
  const colSteps = new Array<number>(order);
  let step = 1;
  for (let k = order - 1; k >= 0; k--) {
    colSteps[k] = step;
    rowSteps[k] = step * colModes[k];
    step *= rowModes[k] * colModes[k];
  }
  const out = new Float64Array(step);
  const colPlaces = places(cols, colModes, colSteps);
  const rowPlaces = places(rows, rowModes, rowSteps);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) out[rowPlaces[r] + colPlaces[c]] = weight[r * cols + c];
  }
  return out;
}

function places(count: number, modes: readonly number[], steps: readonly number[]): Float64Array {
  return Float64Array.from({ length: count }, (_, index) => {
    let [rest, place] = [index, 0];
    for (let k = modes.length - 1; k >= 0; k--) {
      place += (rest % modes[k]) * steps[k];
      rest = Math.floor(rest / modes[k]);
    }
    return place;
  });
}

const energyOf = (values: Float64Array) => values.reduce((sum, value) => sum + value * value, 0);

/** The products of a chain come in fours. */
const inFours = (rank: number) => Math.ceil(rank / 4) * 4;

/**
 * TT-SVD (Oseledets 2011): each core from the truncated SVD of what the cores before it left.
 * @param limits most ranks, d − 1 of them
 * @param tolerance relative error ‖Ŵ − W‖ / ‖W‖ that may be made in all: each of the d − 1 cuts takes its share
 * @returns with the Σ of the squared singular values left out, which the squared error does not exceed
 */
export function tensorTrainOf(
  weight: ArrayLike<number>,
  shape: Shape,
  { rowModes, colModes }: Modes,
  limits: readonly number[],
  tolerance = 0,
): FittedFactors & { discarded: number } {
  const order = rowModes.length;
  let rest = interleaved(weight, shape, { rowModes, colModes });
  const most = (tolerance ** 2 * energyOf(rest)) / Math.max(1, order - 1);
  const parts: Record<string, Float32Array> = {};
  const ranks: number[] = [];
  let before = 1;
  let discarded = 0;
  for (let k = 0; k < order - 1; k++) {
    const rows = before * rowModes[k] * colModes[k];
    const cols = rest.length / rows;
    const { singularValues, left, right } = svd(rest, rows, cols);
    const rank = cutAt(singularValues, limits[k] ?? Number.POSITIVE_INFINITY, most);
    const core = new Float32Array(rows * rank);
    // Shared between both sides, numbers stay of one size.
    const next = new Float64Array(rank * cols);
    for (let i = 0; i < rank; i++) {
      for (let r = 0; r < rows; r++) core[r * rank + i] = left[i * rows + r];
      for (let c = 0; c < cols; c++) next[i * cols + c] = right[i * cols + c] * singularValues[i];
    }
    for (let i = rank; i < singularValues.length; i++) discarded += singularValues[i] ** 2;
    parts[`core.${k}`] = core;
    ranks.push(rank);
    rest = next;
    before = rank;
  }
  parts[`core.${order - 1}`] = Float32Array.from(rest);
  return { factors: { kind: "tensor-train", rowModes, colModes, ranks }, parts, discarded };
}

/** The smallest rank whose tail is allowed, at least 1 and at most `limit`. */
function cutAt(singularValues: Float64Array, limit: number, allowed: number): number {
  let rank = singularValues.length;
  let tail = 0;
  while (rank > 1 && tail + singularValues[rank - 1] ** 2 <= allowed) tail += singularValues[--rank] ** 2;
  return Math.max(1, Math.min(inFours(rank), limit, singularValues.length));
}

/**
 * Tucker's decomposition by truncated SVDs of the unfoldings, one axis after the other of what is left (ST-HOSVD: Vannieuwenhoven,
 * Vandebril, Meerbergen 2012).
 */
export function tuckerOf(
  weight: ArrayLike<number>,
  { rows, cols }: Shape,
  { rowModes, colModes, rowRanks, colRanks }: Omit<Tucker, "kind">,
): FittedFactors & { discarded: number } {
  const padded = productOfModes(rowModes);
  let core = new Float64Array(padded * cols);
  for (let i = 0; i < rows * cols; i++) core[i] = weight[i];
  const modes = [...rowModes, ...colModes];
  const ranks = [...rowRanks, ...colRanks];
  const parts: Record<string, Float32Array> = {};
  let discarded = 0;
  // Every axis is in front once, and goes to the end as its rank.
  for (const [axis, mode] of modes.entries()) {
    const rest = core.length / mode;
    const { singularValues, left, right } = svd(core, mode, rest);
    const rank = ranks[axis];
    const factor = new Float32Array(mode * rank);
    const next = new Float64Array(rest * rank);
    for (let i = 0; i < Math.min(rank, singularValues.length); i++) {
      for (let m = 0; m < mode; m++) factor[m * rank + i] = left[i * mode + m];
      for (let c = 0; c < rest; c++) next[c * rank + i] = right[i * rest + c] * singularValues[i];
    }
    for (let i = rank; i < singularValues.length; i++) discarded += singularValues[i] ** 2;
    const name = axis < rowModes.length ? `rows.${axis}` : `cols.${axis - rowModes.length}`;
    parts[name] = factor;
    core = next;
  }
  parts.core = Float32Array.from(core);
  return { factors: { kind: "tucker", rowModes, colModes, rowRanks, colRanks }, parts, discarded };
}

/** The best sum of `rank` Kronecker products of two factors: the SVD of the rearranged matrix (Van Loan, Pitsianis 1993). */
export function kroneckerOf(weight: ArrayLike<number>, shape: Shape, modes: Modes, rank: number): FittedFactors {
  const { rowModes, colModes } = modes;
  const [first, second] = rowModes.map((mode, k) => mode * colModes[k]);
  const { singularValues, left, right } = svd(interleaved(weight, shape, modes), first, second);
  const factors = [new Float32Array(rank * first), new Float32Array(rank * second)];
  for (let term = 0; term < Math.min(rank, singularValues.length); term++) {
    const root = Math.sqrt(singularValues[term]);
    for (let i = 0; i < first; i++) factors[0][term * first + i] = left[term * first + i] * root;
    for (let i = 0; i < second; i++) factors[1][term * second + i] = right[term * second + i] * root;
  }
  return {
    factors: { kind: "kronecker", rowModes, colModes, rank },
    parts: { "factor.0": factors[0], "factor.1": factors[1] },
  };
}

/** Every row as the best sum of `rank` products of two vectors. */
export function word2ketOf(
  weight: ArrayLike<number>,
  { rows, cols }: Shape,
  colModes: readonly number[],
  rank: number,
): FittedFactors {
  const [first, second] = colModes;
  const leaves = [new Float32Array(rank * rows * first), new Float32Array(rank * rows * second)];
  const row = new Float64Array(cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) row[c] = weight[r * cols + c];
    const { singularValues, left, right } = svd(row, first, second);
    for (let term = 0; term < Math.min(rank, singularValues.length); term++) {
      const root = Math.sqrt(singularValues[term]);
      for (let i = 0; i < first; i++) leaves[0][(term * rows + r) * first + i] = left[term * first + i] * root;
      for (let i = 0; i < second; i++) leaves[1][(term * rows + r) * second + i] = right[term * second + i] * root;
    }
  }
  return { factors: { kind: "word2ket", colModes, rank }, parts: { "leaf.0": leaves[0], "leaf.1": leaves[1] } };
}

/** The best matrix of rank `rank`, both factors with the root of its singular values. */
export function productFactorsOf(weight: ArrayLike<number>, { rows, cols }: Shape, rank: number): FittedFactors {
  const { singularValues, left, right } = svd(weight, rows, cols);
  const [a, b] = [new Float32Array(rows * rank), new Float32Array(rank * cols)];
  for (let i = 0; i < rank; i++) {
    const root = Math.sqrt(singularValues[i]);
    for (let r = 0; r < rows; r++) a[r * rank + i] = left[i * rows + r] * root;
    for (let c = 0; c < cols; c++) b[i * cols + c] = right[i * cols + c] * root;
  }
  return { factors: { kind: "product", rank }, parts: { left: a, right: b } };
}
