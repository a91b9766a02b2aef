import { addProductTransposed, choleskyInPlace, solveCholesky, view } from "../linalg/index.js";

/**
 * What is known of a linear map whose input comes in equal runs, one for each unit: sums over tokens.
 * @property weight f32 [rows, cols]: the map, of the units that stay
 * @property units runs of columns
 * @property gram f64 [cols, cols]: Σ x·xᵀ of its inputs
 * @property cross f64 [rows, cols]: Σ b·xᵀ, b what it is to give
 * @property constant with a free number added to every output beside the masks: what is needed for it
 */
export interface MaskProblem {
  weight: Float32Array;
  rows: number;
  cols: number;
  units: number;
  gram: Float64Array;
  cross: Float64Array;
  constant?: {
    /** f64 [cols]: Σ x. */
    inputs: Float64Array;
    /** Σ of all entries of b. */
    outputs: number;
    tokens: number;
  };
}

/** Factors beyond this are no masks any more: the problem was not one that masks can answer. */
const largestMask = 10;

/**
 * Factors of the units so that what the map gives comes nearest to what it is to give, by least squares over all tokens (Kwon et
 * al. 2022, section 4.3). It is solved for the change from 1 on the normal equations A·x = b, damped: |A·x − b|² + |x|² is made
 * smallest, exactly.
 * @returns f64 [units]; undefined where no answer can be trusted: a factor beyond ±10, or numbers that are not finite
 */
export function tuneMask(problem: MaskProblem): Float64Array | undefined {
  const { units, constant } = problem;
  const size = units + (constant === undefined ? 0 : 1);
  const { a, b } = normalEquations(problem, size);
  // The change from 1 takes the units as they are out of what is wanted.
  const wanted = b.map((value, i) => value - sumOf(a.subarray(i * size, (i + 1) * size)));
  const damped = new Float64Array(size * size);
  addProductTransposed(1, view(a, size), view(a, size), view(damped, size), size, size, size);
  const right = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    damped[i * size + i] += 1;
    for (let j = 0; j < size; j++) right[i] += a[j * size + i] * wanted[j];
  }
  if (!choleskyInPlace(damped, size)) return undefined;
  solveCholesky(damped, size, right);
  const mask = right.subarray(0, units).map((change) => 1 + change);
  // What is not a number is not within bounds either.
  return mask.every((factor) => Math.abs(factor) <= largestMask) ? mask : undefined;
}

const sumOf = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0);

/**
 * Aᵀ·A and Aᵀ·b of the design whose column u is what unit u gives at all tokens, without the design: the products of two units
 * are those of their columns in (Wᵀ·W) ∘ Σ x·xᵀ.
 */
function normalEquations(problem: MaskProblem, size: number): { a: Float64Array; b: Float64Array } {
  const { weight, rows, cols, units, gram, cross, constant } = problem;
  const width = cols / units;
  const unitOf = (column: number) => Math.floor(column / width);
  const transposed = new Float64Array(cols * rows);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) transposed[c * rows + r] = weight[r * cols + c];
  const products = new Float64Array(cols * cols);
  addProductTransposed(1, view(transposed, rows), view(transposed, rows), view(products, cols), cols, cols, rows);
  const a = new Float64Array(size * size);
  const b = new Float64Array(size);
  for (let i = 0; i < cols; i++) {
    for (let j = 0; j < cols; j++) a[unitOf(i) * size + unitOf(j)] += products[i * cols + j] * gram[i * cols + j];
  }
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) b[unitOf(c)] += weight[r * cols + c] * cross[r * cols + c];
  }
  if (constant === undefined) return { a, b };
  for (let c = 0; c < cols; c++) {
    const given = constant.inputs[c] * sumOf(transposed.subarray(c * rows, (c + 1) * rows));
    a[unitOf(c) * size + units] += given;
    a[units * size + unitOf(c)] += given;
  }
  a[units * size + units] = constant.tokens * rows;
  b[units] = constant.outputs;
  return { a, b };
}
