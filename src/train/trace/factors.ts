import { numpy as np } from "@jax-js/jax";
import { UsageError } from "../../core/index.js";
import type { Factors, MatrixShape } from "../../tensor/index.js";
import { morphemeNormEpsilon, trainShape } from "../../tensor/internal.js";
import { layerNorm } from "../engine/layers.js";
import {
  columns,
  concatenate,
  matmul,
  multiply,
  reshape,
  rows,
  sum,
  type Traced,
  take,
  transpose,
} from "../engine/ops.js";
import type { TracedArrays } from "../engine/tracedObjective.js";
import type { FactorPart, ParameterInfo } from "../values.js";

/**
 * The matrices that are trained as factors, made of their parts, so that gradients flow into those: f32 [rows, cols] by the
 * name that each has where it is stored entry by entry. A product of so few numbers costs little beside those with a batch.
 */
export function factoredWeights(parameters: readonly ParameterInfo[], weights: TracedArrays): TracedArrays {
  const found = new Map<string, { part: FactorPart; parts: Record<string, Traced> }>();
  for (const { name, part } of parameters) {
    if (part === undefined) continue;
    const matrix = found.get(part.of) ?? { part, parts: {} };
    matrix.parts[part.name] = weights[name];
    found.set(part.of, matrix);
  }
  return Object.fromEntries(
    Array.from(found, ([name, { part, parts }]) => [name, tracedMatrix(part.form, part.shape, parts, part.integers)]),
  );
}

type Parts = Readonly<Record<string, Traced>>;
type Integers = FactorPart["integers"];
type Maker<F extends Factors> = (form: F, shape: MatrixShape, parts: Parts, integers: Integers) => Traced;

/** W [rows, cols] of its parts. @param integers those that are not learnt @throws UsageError where one of them is missing */
export const tracedMatrix = (form: Factors, shape: MatrixShape, parts: Parts, integers: Integers = {}): Traced =>
  (makers[form.kind] as Maker<Factors>)(form, shape, parts, integers);

const makers: { readonly [Kind in Factors["kind"]]: Maker<Factors & { kind: Kind }> } = {
  product: (_, __, { left, right }) => matmul(left, right),

  // What there is so far is [row digits, column digits, rank]; each core adds one of either and changes the rank.
  "tensor-train"(form, shape, parts) {
    const { rowModes, colModes, ranks, dense } = form;
    let made: Traced | undefined;
    let [height, width] = [1, 1];
    for (const [k, m] of rowModes.entries()) {
      const n = colModes[k];
      const [before, after] = [ranks[k - 1] ?? 1, ranks[k] ?? 1];
      const core = reshape(parts[`core.${k}`], [before, m * n * after]);
      const next: Traced = made === undefined ? core : matmul(reshape(made, [height * width, before]), core);
      const apart = transpose(reshape(next, [height, width, m, n, after]), [0, 2, 1, 3, 4]);
      [height, width] = [height * m, width * n];
      made = reshape(apart, [height, width, after]);
    }
    const { rows: own, cols } = trainShape(form, shape);
    const whole = rows(reshape(made!, [height, cols]), 0, own);
    if (dense === undefined) return whole;
    const { first } = dense;
    const pieces = [rows(whole, 0, first), parts.dense, rows(whole, first, own)];
    return concatenate(
      pieces.filter(({ shape: [count] }) => count > 0),
      0,
    );
  },

  // The axis in front becomes long and goes to the end, once for each.
  tucker({ rowModes, colModes, rowRanks, colRanks }, shape, parts) {
    const modes = [...rowModes, ...colModes];
    const ranks = [...rowRanks, ...colRanks];
    let made = parts.core;
    let size = ranks.reduce((all, rank) => all * rank, 1);
    for (const [axis, mode] of modes.entries()) {
      const factor = parts[axis < rowModes.length ? `rows.${axis}` : `cols.${axis - rowModes.length}`];
      const rest = size / ranks[axis];
      made = transpose(matmul(factor, reshape(made, [ranks[axis], rest])));
      size = rest * mode;
    }
    return rows(reshape(made, [size / shape.cols, shape.cols]), 0, shape.rows);
  },

  // All but the last factor term by term; the last product sums over the terms.
  kronecker({ rowModes, colModes, rank }, shape, parts) {
    const last = rowModes.length - 1;
    let made: Traced | undefined;
    let [height, width] = [1, 1];
    for (let k = 0; k < last; k++) {
      const [m, n] = [rowModes[k], colModes[k]];
      const factor = reshape(parts[`factor.${k}`], [rank, 1, m, 1, n]);
      const next = made === undefined ? factor : multiply(reshape(made, [rank, height, 1, width, 1]), factor);
      [height, width] = [height * m, width * n];
      made = reshape(next, [rank, height * width]);
    }
    const [m, n] = [rowModes[last], colModes[last]];
    const factor = reshape(parts[`factor.${last}`], [rank, m * n]);
    const whole =
      made === undefined
        ? sum(factor, 0)
        : transpose(reshape(matmul(transpose(made), factor), [height, width, m, n]), [0, 2, 1, 3]);
    return rows(reshape(whole, [height * m, width * n]), 0, shape.rows);
  },

  // Every row its own product of vectors, term by term.
  word2ket({ colModes, rank }, { rows: height }, parts) {
    let made = parts["leaf.0"];
    let [width] = colModes;
    for (const [k, mode] of colModes.entries()) {
      if (k === 0) continue;
      const next = reshape(parts[`leaf.${k}`], [rank, height, 1, mode]);
      const product = multiply(reshape(made, [rank, height, width, 1]), next);
      width *= mode;
      made = reshape(product, [rank, height, width]);
    }
    return sum(made, 0);
  },

  // A term's vectors lie side by side in a row of the table, so that one lookup finds them for all terms.
  morphemes({ order, morphemes, width, rank, norm }, { rows: height, cols }, parts, { index }) {
    if (index === undefined) throw new UsageError("which morphemes a row has is not known before weights are read");
    const table = reshape(transpose(parts.table, [1, 0, 2]), [morphemes, rank * width]);
    let made: Traced | undefined;
    let size = 1;
    for (let place = 0; place < order; place++) {
      const numbers = Int32Array.from({ length: height }, (_, row) => index[row * order + place]);
      // The engine cannot compile the gradient of a lookup that is only reshaped: half of it, which is exact, and doubled in the end.
      const found = multiply(take(table, np.array(numbers, { shape: [height] })), 0.5);
      if (made === undefined) made = reshape(found, [height, rank, width]);
      else {
        const product = multiply(reshape(made, [height, rank, size, 1]), reshape(found, [height, rank, 1, width]));
        made = reshape(product, [height, rank, size * width]);
      }
      size *= width;
    }
    const summed = multiply(sum(made!, 1), 2 ** order);
    const whole = size === cols ? summed : columns(summed, 0, cols);
    return norm ? layerNorm(whole, parts["norm.weight"], parts["norm.bias"], morphemeNormEpsilon) : whole;
  },
};
