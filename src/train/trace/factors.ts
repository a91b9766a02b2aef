import { UsageError } from "../../core/index.js";
import type { Factors, MatrixShape } from "../../tensor/index.js";
import { trainShape } from "../../tensor/internal.js";
import { concatenate, matmul, multiply, reshape, rows, sum, type Traced, transpose } from "../engine/ops.js";
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
    Array.from(found, ([name, { part, parts }]) => [name, tracedMatrix(part.form, part.shape, parts)]),
  );
}

type Parts = Readonly<Record<string, Traced>>;
type Maker<F extends Factors> = (form: F, shape: MatrixShape, parts: Parts) => Traced;

/** W [rows, cols] of its parts. @throws UsageError for a kind that is not trained */
export const tracedMatrix = (form: Factors, shape: MatrixShape, parts: Parts): Traced =>
  (makers[form.kind] as Maker<Factors>)(form, shape, parts);

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

  morphemes() {
    throw new UsageError("a table that is made of morphemes is not trained; rarefy export multiplies it out");
  },
};
