import { Random } from "../../core/index.js";
import type { Morphemes } from "../../tensor/index.js";
import { factorRows, morphemeNormEpsilon } from "../../tensor/internal.js";
import type { Shape } from "../contract.js";
import type { FittedFactors } from "./fit.js";
import type { Segmentation } from "./segment.js";

/** Of the diagonal of normal equations, relative to its mean: what few tokens say is not taken to extremes. */
const ridge = 1e-4;

/**
 * The table whose products come near W in the sense of least squares, by alternating: all vectors of one morpheme at a time, with those of
 * the others as they are. Where a token has a morpheme once this is a linear problem with as many unknowns a digit as there are
 * terms, and the loss cannot grow; of a token that has it twice the others count as they were.
 * @param sweeps over all morphemes
 */
export function morphemesOf(
  weight: Float32Array,
  shape: Shape,
  form: Morphemes,
  { index }: Segmentation,
  { sweeps, seed }: { sweeps: number; seed: number },
): FittedFactors {
  const { rank, width, order, morphemes } = form;
  const full = width ** order;
  const table = startOf(weight, form, seed);
  const uses = usesOf(index, morphemes);
  const unfolding = new Float64Array(full);
  const others = new Float64Array(rank * (full / width));
  const gram = new Float64Array(rank * rank);
  const sides = new Float64Array(rank * width);
  for (let sweep = 0; sweep < sweeps; sweep++) {
    for (const [morpheme, places] of uses.entries()) {
      if (places.length === 0) continue;
      gram.fill(0);
      sides.fill(0);
      for (const at of places) {
        const [token, place] = [Math.floor(at / order), at % order];
        unfold(unfolding, weight, token * shape.cols, shape.cols, width, order, place);
        productsOfOthers(others, table, index, token, place, form);
        addNormal(gram, sides, unfolding, others, rank, width);
      }
      solveInto(table, morpheme, gram, sides, form);
    }
  }
  const parts = { table: Float32Array.from(table), index };
  if (!form.norm) return { factors: form, parts };
  return { factors: form, parts: { ...parts, ...normOf(weight, shape, form, parts) } };
}

/** Products of the size that entries of W have. */
function startOf(weight: Float32Array, { rank, morphemes, width, order }: Morphemes, seed: number): Float64Array {
  const random = new Random(seed);
  const square = weight.reduce((sum, value) => sum + value * value, 0) / weight.length;
  const deviation = (square / rank) ** (1 / (2 * order));
  return Float64Array.from({ length: rank * morphemes * width }, () => deviation * random.normal());
}

/** Places [token · order + place] by morpheme. */
function usesOf(index: Uint32Array, morphemes: number): number[][] {
  const uses = Array.from({ length: morphemes }, (): number[] => []);
  for (let at = 0; at < index.length; at++) uses[index[at]].push(at);
  return uses;
}

/** out [width, full / width]: a row of W with the digit of `place` in front, 0 beyond its columns. */
function unfold(
  out: Float64Array,
  weight: Float32Array,
  at: number,
  cols: number,
  width: number,
  order: number,
  place: number,
): void {
  const behind = width ** (order - 1 - place);
  const rest = out.length / width;
  out.fill(0);
  for (let c = 0; c < cols; c++) {
    const digit = Math.floor(c / behind) % width;
    const before = Math.floor(c / (behind * width));
    out[digit * rest + before * behind + (c % behind)] = weight[at + c];
  }
}

/** out [rank, full / width]: ⊗ of the vectors at the other places. */
function productsOfOthers(
  out: Float64Array,
  table: Float64Array,
  index: Uint32Array,
  token: number,
  place: number,
  { rank, morphemes, width, order }: Morphemes,
): void {
  const rest = out.length / rank;
  for (let k = 0; k < rank; k++) {
    out[k * rest] = 1;
    let made = 1;
    for (let j = 0; j < order; j++) {
      if (j === place) continue;
      const from = (k * morphemes + index[token * order + j]) * width;
      // From the end, so that nothing is overwritten that is still to be read.
      for (let a = made - 1; a >= 0; a--) {
        const value = out[k * rest + a];
        for (let b = width - 1; b >= 0; b--) out[k * rest + a * width + b] = value * table[from + b];
      }
      made *= width;
    }
  }
}

/** Adds what a token says: gram += K Kᵀ, sides += K Uᵀ, with K [rank, rest] and U [width, rest]. */
function addNormal(
  gram: Float64Array,
  sides: Float64Array,
  unfolding: Float64Array,
  others: Float64Array,
  rank: number,
  width: number,
): void {
  const rest = others.length / rank;
  const dot = (a: Float64Array, atA: number, b: Float64Array, atB: number) => {
    let sum = 0;
    for (let i = 0; i < rest; i++) sum += a[atA + i] * b[atB + i];
    return sum;
  };
  for (let k = 0; k < rank; k++) {
    for (let l = k; l < rank; l++) gram[k * rank + l] += dot(others, k * rest, others, l * rest);
    for (let d = 0; d < width; d++) sides[k * width + d] += dot(others, k * rest, unfolding, d * rest);
  }
}

/** The vectors of one morpheme from its normal equations (Cholesky), whose upper half is filled. */
function solveInto(
  table: Float64Array,
  morpheme: number,
  gram: Float64Array,
  sides: Float64Array,
  { rank, morphemes, width }: Morphemes,
): void {
  let trace = 0;
  for (let k = 0; k < rank; k++) trace += gram[k * rank + k];
  if (!(trace > 0)) return;
  const added = (ridge * trace) / rank;
  // gram = RᵀR with R above the diagonal.
  for (let k = 0; k < rank; k++) {
    let pivot = gram[k * rank + k] + added;
    for (let m = 0; m < k; m++) pivot -= gram[m * rank + k] ** 2;
    const root = Math.sqrt(Math.max(pivot, added * 1e-6));
    gram[k * rank + k] = root;
    for (let l = k + 1; l < rank; l++) {
      let value = gram[k * rank + l];
      for (let m = 0; m < k; m++) value -= gram[m * rank + k] * gram[m * rank + l];
      gram[k * rank + l] = value / root;
    }
  }
  // The ridge pulls to what there is, not to nothing.
  for (let k = 0; k < rank; k++) {
    for (let d = 0; d < width; d++) sides[k * width + d] += added * table[(k * morphemes + morpheme) * width + d];
  }
  for (let d = 0; d < width; d++) {
    for (let k = 0; k < rank; k++) {
      let value = sides[k * width + d];
      for (let m = 0; m < k; m++) value -= gram[m * rank + k] * sides[m * width + d];
      sides[k * width + d] = value / gram[k * rank + k];
    }
    for (let k = rank - 1; k >= 0; k--) {
      let value = sides[k * width + d];
      for (let l = k + 1; l < rank; l++) value -= gram[k * rank + l] * sides[l * width + d];
      sides[k * width + d] = value / gram[k * rank + k];
      table[(k * morphemes + morpheme) * width + d] = sides[k * width + d];
    }
  }
}

/** Weight and bias of every column by least squares, given rows of mean 0 and variance 1. */
function normOf(
  weight: Float32Array,
  { rows, cols }: Shape,
  form: Morphemes,
  parts: { table: Float32Array; index: Uint32Array },
): { "norm.weight": Float32Array; "norm.bias": Float32Array } {
  const write = factorRows({ ...form, norm: false }, { rows, cols }, parts);
  const row = new Float64Array(cols);
  const sums = {
    x: new Float64Array(cols),
    xx: new Float64Array(cols),
    y: new Float64Array(cols),
    xy: new Float64Array(cols),
  };
  for (let r = 0; r < rows; r++) {
    write(r, row);
    const mean = row.reduce((sum, value) => sum + value, 0) / cols;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / cols;
    const scale = 1 / Math.sqrt(variance + morphemeNormEpsilon);
    for (let c = 0; c < cols; c++) {
      const [x, y] = [(row[c] - mean) * scale, weight[r * cols + c]];
      sums.x[c] += x;
      sums.xx[c] += x * x;
      sums.y[c] += y;
      sums.xy[c] += x * y;
    }
  }
  const slope = Float32Array.from({ length: cols }, (_, c) => {
    const spread = rows * sums.xx[c] - sums.x[c] ** 2;
    return spread > 0 ? (rows * sums.xy[c] - sums.x[c] * sums.y[c]) / spread : 0;
  });
  return { "norm.weight": slope, "norm.bias": slope.map((w, c) => (sums.y[c] - w * sums.x[c]) / rows) };
}
