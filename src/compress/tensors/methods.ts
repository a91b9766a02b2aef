import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type {
  Factors,
  KroneckerSum,
  MatrixShape,
  ProductFactors,
  TensorTrain,
  Tucker,
  Word2ket,
} from "../../tensor/index.js";
import { trainShape } from "../../tensor/internal.js";
import type { AnyOptions, Shape } from "../contract.js";
import type { FactorSize, TensorMethod } from "./contract.js";
import { kroneckerOf, type Modes, modesOf, productFactorsOf, tensorTrainOf, tuckerOf, word2ketOf } from "./fit.js";
import { morphte } from "./morphte.js";
import { capForBudget, modeRanks, modeRanksForBudget, rankStep, trainRanks } from "./ranks.js";

const modes = z.array(z.int().check(z.gte(1), z.lte(65_536))).check(z.minLength(1), z.maxLength(8));
const modeOptions = {
  order: z
    ._default(z.int().check(z.gte(2), z.lte(8)), 2)
    .check(z.describe("axes that rows, and columns, are cut into")),
  rowModes: z.optional(modes).check(z.describe("their lengths for rows; the default is as equal as can be")),
  colModes: z.optional(modes).check(z.describe("their lengths for columns, whose product is the width")),
};
const ofModes = z.strictObject(modeOptions);
type ModeOptions = z.output<typeof ofModes>;

function chosenModes(shape: Shape, { order, rowModes, colModes }: ModeOptions): Modes {
  const balanced = modesOf(shape, rowModes?.length ?? colModes?.length ?? order);
  return { rowModes: rowModes ?? balanced.rowModes, colModes: colModes ?? balanced.colModes };
}

/** The factors that a size allows. @param made factors of at most that rank */
function sized<F extends Factors>(made: (cap: number) => F, shape: MatrixShape, size: FactorSize): F {
  const { rank = Number.POSITIVE_INFINITY, keepRatio } = size;
  return made(keepRatio === undefined ? rank : capForBudget(made, shape, keepRatio * shape.rows * shape.cols));
}

const ttPaper = "Oseledets 2011; Novikov, Podoprikhin, Osokin, Vetrov 2015, arXiv:1509.06569";

const tt: TensorMethod<ModeOptions> = {
  id: "tt",
  title: "Tensor train",
  paper: ttPaper,
  of: ["blocks", "embedding"],
  tolerates: true,
  options: ofModes,
  plan(shape, options, size) {
    const chosen = chosenModes(shape, options);
    return sized(
      (cap): TensorTrain => ({ kind: "tensor-train", ...chosen, ranks: trainRanks(chosen, cap) }),
      shape,
      size,
    );
  },
  fit: (weight, shape, planned, tolerance) => {
    const { ranks, ...chosen } = planned as TensorTrain;
    return tensorTrainOf(weight, shape, chosen, ranks, tolerance);
  },
};

const ofHybrid = z.strictObject({
  ...modeOptions,
  denseShare: z
    ._default(z.number().check(z.gt(0), z.lt(1)), 0.5)
    .check(z.describe("share of the numbers that the dense rows may take")),
});

/** Some rows stay as they are, so that W has full rank; a train makes the others. */
const htt: TensorMethod<z.output<typeof ofHybrid>> = {
  id: "htt",
  title: "Hybrid tensor train (Hypoformer)",
  paper: "Li, Zhang, Gan, Gao, Lu, Zhu, Hu 2022, EMNLP",
  of: ["blocks"],
  tolerates: false,
  options: ofHybrid,
  plan(shape, { denseShare, ...options }, { keepRatio }) {
    if (keepRatio === undefined) throw new UsageError("a hybrid tensor train is made by keepRatio");
    const { rows, cols } = shape;
    const share = Math.max(rankStep, Math.floor((denseShare * keepRatio * rows) / rankStep) * rankStep);
    const dense = { first: 0, rows: Math.min(share, rows - rankStep) };
    const chosen = chosenModes({ rows: rows - dense.rows, cols }, options);
    return sized(
      (cap): TensorTrain => ({ kind: "tensor-train", ...chosen, ranks: trainRanks(chosen, cap), dense }),
      shape,
      { keepRatio },
    );
  },
  fit(weight, shape, planned) {
    const { ranks, dense, ...chosen } = planned as TensorTrain & { dense: NonNullable<TensorTrain["dense"]> };
    const { rows, cols } = shape;
    const first = largestRows(weight, shape, dense.rows);
    const end = first + dense.rows;
    const others = new Float32Array((rows - dense.rows) * cols);
    others.set(weight.subarray(0, first * cols));
    others.set(weight.subarray(end * cols), first * cols);
    const factors: TensorTrain = { ...chosen, ranks, kind: "tensor-train", dense: { first, rows: dense.rows } };
    const { parts } = tensorTrainOf(others, trainShape(factors, shape), chosen, ranks);
    return { factors, parts: { ...parts, dense: weight.slice(first * cols, end * cols) } };
  },
};

/** Where the `count` rows with the largest squares begin, a multiple of 4. */
function largestRows(weight: Float32Array, { rows, cols }: Shape, count: number): number {
  const before = new Float64Array(rows + 1);
  for (let r = 0; r < rows; r++) {
    let energy = 0;
    for (let c = 0; c < cols; c++) energy += weight[r * cols + c] ** 2;
    before[r + 1] = before[r] + energy;
  }
  let best = 0;
  for (let first = 0; first + count <= rows; first += rankStep) {
    if (before[first + count] - before[first] > before[best + count] - before[best]) best = first;
  }
  return best;
}

const tucker: TensorMethod<ModeOptions> = {
  id: "tucker",
  title: "Tucker",
  paper: "Tucker 1966; Vannieuwenhoven, Vandebril, Meerbergen 2012, SIAM J. Sci. Comput. 34(2)",
  of: ["blocks"],
  tolerates: false,
  options: ofModes,
  plan(shape, options, size) {
    const chosen = chosenModes(shape, options);
    const modes = [...chosen.rowModes, ...chosen.colModes];
    const made = (ranks: readonly number[]): Tucker => ({
      kind: "tucker",
      ...chosen,
      rowRanks: ranks.slice(0, chosen.rowModes.length),
      colRanks: ranks.slice(chosen.rowModes.length),
    });
    const { rank = Number.POSITIVE_INFINITY, keepRatio } = size;
    if (keepRatio === undefined) return made(modeRanks(modes, rank));
    return made(modeRanksForBudget(made, modes, shape, keepRatio * shape.rows * shape.cols));
  },
  fit: (weight, shape, planned) => tuckerOf(weight, shape, planned as Tucker),
};

const nothing = z.strictObject({});

const matrix: TensorMethod<AnyOptions> = {
  id: "matrix",
  title: "Matrix factors",
  paper: "Eckart, Young 1936, Psychometrika 1(3)",
  of: ["embedding"],
  tolerates: false,
  options: nothing,
  plan: (shape, _, size) =>
    sized((cap): ProductFactors => ({ kind: "product", rank: Math.min(cap, shape.rows, shape.cols) }), shape, size),
  fit: (weight, shape, planned) => productFactorsOf(weight, shape, (planned as ProductFactors).rank),
};

/** Its sums of Kronecker products of two factors have a best one; of more there is none that could be computed. */
const pair = z.array(z.int().check(z.gte(1), z.lte(65_536))).check(z.length(2));
const pairs = z.strictObject({ rowModes: z.optional(pair), colModes: z.optional(pair) });

const word2ketxs: TensorMethod<z.output<typeof pairs>> = {
  id: "word2ketxs",
  title: "word2ketXS",
  paper: "Panahi, Saeedi, Arodz 2020, arXiv:1911.04975",
  of: ["embedding"],
  tolerates: false,
  options: pairs,
  plan(shape, options, size) {
    const chosen = chosenModes(shape, { ...options, order: 2 });
    const [most] = trainRanks(chosen, Number.POSITIVE_INFINITY);
    return sized((cap): KroneckerSum => ({ kind: "kronecker", ...chosen, rank: Math.min(cap, most) }), shape, size);
  },
  fit: (weight, shape, planned) => kroneckerOf(weight, shape, planned as KroneckerSum, (planned as KroneckerSum).rank),
};

const columnPairs = z.strictObject({ colModes: z.optional(pair) });

const word2ket: TensorMethod<z.output<typeof columnPairs>> = {
  id: "word2ket",
  title: "word2ket",
  paper: "Panahi, Saeedi, Arodz 2020, arXiv:1911.04975",
  of: ["embedding"],
  tolerates: false,
  options: columnPairs,
  plan(shape, options, { rank, keepRatio }) {
    const { colModes } = chosenModes(shape, { ...options, order: 2 });
    const most = Math.min(...colModes);
    const perRank = colModes[0] + colModes[1];
    const byRatio = keepRatio === undefined ? most : Math.max(1, Math.floor((keepRatio * shape.cols) / perRank));
    return { kind: "word2ket", colModes, rank: Math.min(most, rank ?? byRatio) };
  },
  fit(weight, shape, planned) {
    const { colModes, rank } = planned as Word2ket;
    return word2ketOf(weight, shape, colModes, rank);
  },
};

/** Every method that makes factors of a matrix, by its name in recipes. */
export const tensorMethods = { tt, htt, tucker, matrix, word2ketxs, word2ket, morphte } as Readonly<
  Record<string, TensorMethod>
>;
