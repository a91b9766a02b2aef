import type { FactorKind, FactorParts, KroneckerSum, Morphemes, RowWriter, TensorTrain, Word2ket } from "./contract.js";
import { digitsOf, modeProblems, productOfModes } from "./modes.js";
import { tensorTrain } from "./tensorTrain.js";

/** out += ⊗ of vectors, the first the most significant, as much of it as there is room for. */
function addKronecker(out: Float64Array, vectors: readonly ArrayLike<number>[]): void {
  let made = Float64Array.of(1);
  for (const vector of vectors) {
    const next = new Float64Array(made.length * vector.length);
    for (let a = 0; a < made.length; a++) {
      for (let b = 0; b < vector.length; b++) next[a * vector.length + b] = made[a] * vector[b];
    }
    made = next;
  }
  for (let i = 0; i < out.length; i++) out[i] += made[i];
}

/** @param vectorsOf the vectors of a row in one term */
function sumOfTerms(
  cols: number,
  rank: number,
  vectorsOf: (row: number, term: number) => ArrayLike<number>[],
): RowWriter {
  const sums = new Float64Array(cols);
  return (row, out) => {
    sums.fill(0);
    for (let term = 0; term < rank; term++) addKronecker(sums, vectorsOf(row, term));
    out.set(sums);
  };
}

export const kronecker: FactorKind<KroneckerSum> = {
  problems: modeProblems,
  parts: ({ rowModes, colModes, rank }) =>
    Object.fromEntries(rowModes.map((mode, k) => [`factor.${k}`, { shape: [rank, mode, colModes[k]] }])),
  rowWriter: ({ rowModes, colModes, rank }, { cols }, parts) =>
    sumOfTerms(cols, rank, (row, term) =>
      digitsOf(row, rowModes).map((digit, k) => {
        const at = (term * rowModes[k] + digit) * colModes[k];
        return parts[`factor.${k}`].subarray(at, at + colModes[k]);
      }),
    ),
  chain: (factors, shape, parts) => tensorTrain.chain!(trainOf(factors), shape, trainParts(factors, parts)),
};

/** The same matrix as a train, whose inner cores are diagonal in their ranks. */
const trainOf = ({ rowModes, colModes, rank }: KroneckerSum): TensorTrain => ({
  kind: "tensor-train",
  rowModes,
  colModes,
  ranks: new Array<number>(rowModes.length - 1).fill(rank),
});

function trainParts({ rowModes, colModes, rank }: KroneckerSum, parts: FactorParts): FactorParts {
  const last = rowModes.length - 1;
  return Object.fromEntries(
    rowModes.map((mode, k) => {
      const factor = parts[`factor.${k}`];
      const entries = mode * colModes[k];
      if (last === 0) {
        const sum = new Float32Array(entries);
        for (let i = 0; i < factor.length; i++) sum[i % entries] += factor[i];
        return [`core.${k}`, sum];
      }
      const [before, after] = [k === 0 ? 1 : rank, k === last ? 1 : rank];
      const core = new Float32Array(before * entries * after);
      for (let term = 0; term < rank; term++) {
        for (let i = 0; i < entries; i++) {
          core[((before === 1 ? 0 : term) * entries + i) * after + (after === 1 ? 0 : term)] =
            factor[term * entries + i];
        }
      }
      return [`core.${k}`, core];
    }),
  );
}

export const word2ket: FactorKind<Word2ket> = {
  problems: ({ colModes }, { cols }) =>
    productOfModes(colModes) === cols ? [] : [`column modes ${colModes.join(" · ")} do not make ${cols}`],
  parts: ({ colModes, rank }, { rows }) =>
    Object.fromEntries(colModes.map((mode, k) => [`leaf.${k}`, { shape: [rank, rows, mode] }])),
  rowWriter: ({ colModes, rank }, { rows, cols }, parts) =>
    sumOfTerms(cols, rank, (row, term) =>
      colModes.map((mode, k) =>
        parts[`leaf.${k}`].subarray((term * rows + row) * mode, (term * rows + row + 1) * mode),
      ),
    ),
};

/** Of the variance of a row, as `torch.nn.LayerNorm` has it. */
export const morphemeNormEpsilon = 1e-5;

export const morphemes: FactorKind<Morphemes> = {
  problems({ order, width }, { cols }) {
    return width ** order >= cols ? [] : [`${width}^${order} numbers do not reach ${cols}`];
  },
  parts: ({ order, morphemes, width, rank, norm }, { rows, cols }) => ({
    table: { shape: [rank, morphemes, width] },
    index: { shape: [rows, order], below: morphemes },
    ...(norm && { "norm.weight": { shape: [cols] }, "norm.bias": { shape: [cols] } }),
  }),
  scoreProblem: ({ width }) => (width % 4 === 0 ? undefined : `vectors of ${width}; only multiples of 4 can be run`),
  rowWriter({ order, morphemes, width, rank, norm }, { cols }, parts) {
    const { table, index } = parts;
    const sum = sumOfTerms(cols, rank, (row, term) =>
      Array.from({ length: order }, (_, k) => {
        const at = (term * morphemes + index[row * order + k]) * width;
        return table.subarray(at, at + width);
      }),
    );
    if (!norm) return sum;
    const values = new Float64Array(cols);
    const [weight, bias] = [parts["norm.weight"], parts["norm.bias"]];
    return (row, out) => {
      sum(row, values);
      const mean = values.reduce((all, value) => all + value, 0) / cols;
      const variance = values.reduce((all, value) => all + (value - mean) ** 2, 0) / cols;
      const scale = 1 / Math.sqrt(variance + morphemeNormEpsilon);
      for (let c = 0; c < cols; c++) out[c] = (values[c] - mean) * scale * weight[c] + bias[c];
    };
  },
};
