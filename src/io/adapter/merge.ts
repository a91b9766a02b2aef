import type { LoraPair, Rescaling } from "./adapter.js";

/**
 * W + sign · scale · b · a, f32 [rows, cols]; with −1 an adapter is taken out again, exact to rounding.
 * @param mask u8 [rows, cols]: where 0, the weight stays as it is (a pruned matrix keeps its zeros)
 */
export function addPair(weight: Float32Array, pair: LoraPair, sign: 1 | -1 = 1, mask?: Uint8Array): Float32Array {
  const { a, b, rank, rows, cols, scale } = pair;
  const out = new Float32Array(weight.length);
  const line = new Float64Array(cols);
  for (let r = 0; r < rows; r++) {
    line.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = b[r * rank + k];
      for (let c = 0; c < cols; c++) line[c] += factor * a[k * cols + c];
    }
    for (let c = 0; c < cols; c++) {
      const i = r * cols + c;
      out[i] = mask?.[i] === 0 ? weight[i] : weight[i] + sign * scale * line[c];
    }
  }
  return out;
}

/** W with its rows (outputs) or columns (inputs) multiplied, f32 [rows, cols]; with −1 divided. */
export function rescale(
  weight: Float32Array,
  cols: number,
  { factors, of }: Rescaling,
  sign: 1 | -1 = 1,
): Float32Array {
  return weight.map((w, i) => {
    const factor = factors[of === "outputs" ? Math.floor(i / cols) : i % cols];
    return sign === 1 ? w * factor : w / factor;
  });
}
