import type { FactorKind, ProductFactors } from "./contract.js";

export const product: FactorKind<ProductFactors> = {
  problems: ({ rank }, { rows, cols }) =>
    rank > Math.min(rows, cols) ? [`rank ${rank} is more than the ${Math.min(rows, cols)} of ${rows} × ${cols}`] : [],
  parts: ({ rank }, { rows, cols }) => ({ left: { shape: [rows, rank] }, right: { shape: [rank, cols] } }),
  rowWriter({ rank }, { cols }, { left, right }) {
    const sums = new Float64Array(cols);
    return (row, out) => {
      sums.fill(0);
      for (let k = 0; k < rank; k++) {
        const share = left[row * rank + k];
        for (let c = 0; c < cols; c++) sums[c] += share * right[k * cols + c];
      }
      out.set(sums);
    };
  },
  chain: ({ rank }, { rows, cols }, { left, right }) => [
    { name: "right", rows: rank, cols, values: right as Float32Array, turned: rank, run: 1 },
    { name: "left", rows, cols: rank, values: left as Float32Array, turned: rows, run: 1 },
  ],
};
