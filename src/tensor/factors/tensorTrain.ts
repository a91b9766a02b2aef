import type { ChainStep, FactorKind, FactorParts, MatrixShape, RowWriter, TensorTrain } from "./contract.js";
import { digitsOf, modeProblems } from "./modes.js";

/** Rank before core k, and behind it for k + 1. */
const rankAt = (ranks: readonly number[], k: number): number => (k === 0 || k > ranks.length ? 1 : ranks[k - 1]);

/** The matrix that the train itself makes. */
export const trainShape = ({ dense }: TensorTrain, { rows, cols }: MatrixShape): MatrixShape => ({
  rows: rows - (dense?.rows ?? 0),
  cols,
});

export const tensorTrain: FactorKind<TensorTrain> = {
  problems(factors, shape) {
    const { rowModes, ranks, dense } = factors;
    if (dense !== undefined && dense.first + dense.rows > shape.rows) {
      return [`dense rows ${dense.first} … ${dense.first + dense.rows - 1} of ${shape.rows}`];
    }
    const problems = modeProblems(factors, trainShape(factors, shape));
    if (ranks.length !== rowModes.length - 1) problems.push(`${ranks.length} ranks for ${rowModes.length} cores`);
    return problems;
  },
  parts({ rowModes, colModes, ranks, dense }, { cols }) {
    const cores = rowModes.map((mode, k) => [
      `core.${k}`,
      { shape: [rankAt(ranks, k), mode, colModes[k], rankAt(ranks, k + 1)] },
    ]);
    return { ...Object.fromEntries(cores), ...(dense && { dense: { shape: [dense.rows, cols] } }) };
  },
  rowWriter(factors, { cols }, parts) {
    const { dense } = factors;
    const ofTrain = trainRow(factors, parts);
    if (dense === undefined) return ofTrain;
    const end = dense.first + dense.rows;
    return (row, out) => {
      if (row < dense.first) ofTrain(row, out);
      else if (row >= end) ofTrain(row - dense.rows, out);
      else out.set(parts.dense.subarray((row - dense.first) * cols, (row - dense.first + 1) * cols));
    };
  },
  chain: trainChain,
};

function trainRow({ rowModes, colModes, ranks }: TensorTrain, parts: FactorParts): RowWriter {
  return (row, out) => {
    const digits = digitsOf(row, rowModes);
    // [columns so far, rank]
    let made = Float64Array.of(1);
    for (const [k, digit] of digits.entries()) {
      const core = parts[`core.${k}`];
      const [before, after, mode] = [rankAt(ranks, k), rankAt(ranks, k + 1), colModes[k]];
      const runs = made.length / before;
      const next = new Float64Array(runs * mode * after);
      for (let run = 0; run < runs; run++) {
        for (let a = 0; a < before; a++) {
          const share = made[run * before + a];
          const from = (a * rowModes[k] + digit) * mode * after;
          for (let i = 0; i < mode * after; i++) next[run * mode * after + i] += share * core[from + i];
        }
      }
      made = next;
    }
    out.set(made);
  };
}

/** Core by core from the last: (j_k, r_k) of what there is become (i_k, r_{k − 1}), and i_k goes to the front. */
function trainChain({ rowModes, colModes, ranks }: TensorTrain, _: MatrixShape, parts: FactorParts): ChainStep[] {
  const steps: ChainStep[] = [];
  for (let k = rowModes.length - 1; k >= 0; k--) {
    const [before, after, m, n] = [rankAt(ranks, k), rankAt(ranks, k + 1), rowModes[k], colModes[k]];
    const core = parts[`core.${k}`];
    const values = new Float32Array(m * before * n * after);
    for (let a = 0; a < before; a++) {
      for (let i = 0; i < m; i++) {
        values.set(core.subarray((a * m + i) * n * after, (a * m + i + 1) * n * after), (i * before + a) * n * after);
      }
    }
    steps.push({ name: `core.${k}`, rows: m * before, cols: n * after, values, turned: m, run: before });
  }
  return steps;
}
