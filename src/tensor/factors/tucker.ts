import type { ChainStep, FactorKind, Tucker } from "./contract.js";
import { digitsOf, modeProblems, productOfModes } from "./modes.js";

export const tucker: FactorKind<Tucker> = {
  problems(factors, shape) {
    const { rowModes, colModes, rowRanks, colRanks } = factors;
    const problems = modeProblems(factors, shape);
    for (const [axis, modes, ranks] of [
      ["row", rowModes, rowRanks],
      ["column", colModes, colRanks],
    ] as const) {
      if (modes.length !== ranks.length) problems.push(`${ranks.length} ${axis} ranks for ${modes.length} modes`);
      for (const [k, rank] of ranks.entries()) {
        if (rank > modes[k]) problems.push(`${axis} rank ${rank} is more than its mode ${modes[k]}`);
      }
    }
    return problems;
  },
  parts: ({ rowModes, colModes, rowRanks, colRanks }) => ({
    core: { shape: [...rowRanks, ...colRanks] },
    ...Object.fromEntries(rowModes.map((mode, k) => [`rows.${k}`, { shape: [mode, rowRanks[k]] }])),
    ...Object.fromEntries(colModes.map((mode, k) => [`cols.${k}`, { shape: [mode, colRanks[k]] }])),
  }),
  rowWriter({ rowModes, colModes, rowRanks, colRanks }, _, parts) {
    return (row, out) => {
      let made: Float64Array = Float64Array.from(parts.core);
      // Row axes stand in front, and each digit takes one away.
      for (const [k, digit] of digitsOf(row, rowModes).entries()) {
        const factor = parts[`rows.${k}`];
        const rest = made.length / rowRanks[k];
        const next = new Float64Array(rest);
        for (let a = 0; a < rowRanks[k]; a++) {
          const share = factor[digit * rowRanks[k] + a];
          for (let i = 0; i < rest; i++) next[i] += share * made[a * rest + i];
        }
        made = next;
      }
      for (const [k, rank] of colRanks.entries()) made = firstToLast(made, parts[`cols.${k}`], colModes[k], rank);
      out.set(made);
    };
  },
  chain({ rowModes, colModes, rowRanks, colRanks }, _, parts) {
    const steps: ChainStep[] = [];
    for (let k = colModes.length - 1; k >= 0; k--) {
      const [mode, rank] = [colModes[k], colRanks[k]];
      const factor = parts[`cols.${k}`];
      const values = Float32Array.from(
        { length: rank * mode },
        (_, i) => factor[(i % mode) * rank + Math.floor(i / mode)],
      );
      steps.push({ name: `cols.${k}`, rows: rank, cols: mode, values, turned: rank, run: 1 });
    }
    const [rows, cols] = [productOfModes(rowRanks), productOfModes(colRanks)];
    steps.push({ name: "core", rows, cols, values: parts.core as Float32Array, turned: rows, run: 1 });
    for (let k = rowModes.length - 1; k >= 0; k--) {
      const [mode, rank] = [rowModes[k], rowRanks[k]];
      const values = parts[`rows.${k}`] as Float32Array;
      steps.push({ name: `rows.${k}`, rows: mode, cols: rank, values, turned: mode, run: 1 });
    }
    return steps;
  },
};

/** x [rank, rest] → [rest, mode], the first axis multiplied with factor [mode, rank] and put last. */
function firstToLast(x: Float64Array, factor: ArrayLike<number>, mode: number, rank: number): Float64Array {
  const rest = x.length / rank;
  const out = new Float64Array(rest * mode);
  for (let i = 0; i < rest; i++) {
    for (let m = 0; m < mode; m++) {
      let sum = 0;
      for (let a = 0; a < rank; a++) sum += factor[m * rank + a] * x[a * rest + i];
      out[i * mode + m] = sum;
    }
  }
  return out;
}
