import { UsageError } from "../../core/index.js";
import type { QuantizeResult } from "../contract.js";
import { wholeRows } from "./int8.js";

/**
 * y = x·Wᵀ with inputs rounded as the method says: the plain form that kernels are compared with. Channels with an
 * outlier in this call are multiplied in float and leave the ranges of the others alone; the rest is an integer product
 * of codes, with the terms of the zero points taken off, rescaled by the scales of token and row.
 * @param x f32 [tokens, cols]
 * @param quantized with one grid per row and `activation`
 * @returns f32 [tokens, rows]
 */
export function integerProduct(x: Float32Array, quantized: QuantizeResult, cols: number): Float32Array {
  const { activation, codes, scales, zeros, weight, groupSize } = quantized;
  if (activation === undefined || groupSize !== cols) {
    throw new UsageError("an integer product needs weights with one grid per row and quantised inputs");
  }
  const tokens = x.length / cols;
  const rows = codes.length / cols;
  const outlying = new Uint8Array(cols);
  for (const c of quantized.outlierColumns ?? []) outlying[c] = 1;
  if (activation.outlierThreshold > 0) {
    for (let i = 0; i < x.length; i++) if (Math.abs(x[i]) >= activation.outlierThreshold) outlying[i % cols] = 1;
  }

  const inner = x.map((value, i) => (outlying[i % cols] === 1 ? 0 : value));
  // A tensor's grid is that of one long row.
  const inputs = activation.per === "token" ? [tokens, cols] : [1, tokens * cols];
  const rounded = wholeRows(inputs[0], inputs[1], activation.bits, activation.symmetric);
  rounded.fitAll(inner);
  rounded.roundAll(inner);

  const y = new Float32Array(tokens * rows);
  for (let t = 0; t < tokens; t++) {
    const grid = activation.per === "token" ? t : 0;
    for (let r = 0; r < rows; r++) {
      let products = 0;
      let inputSum = 0;
      let weightSum = 0;
      let float = 0;
      for (let c = 0; c < cols; c++) {
        const input = rounded.codes[t * cols + c];
        const code = codes[r * cols + c];
        products += input * code;
        inputSum += input;
        weightSum += code;
        if (outlying[c] === 1) float += x[t * cols + c] * weight[r * cols + c];
      }
      const inputZero = rounded.zeros[grid];
      const integer = products - zeros[r] * inputSum - inputZero * weightSum + cols * inputZero * zeros[r];
      y[t * rows + r] = integer * rounded.scales[grid] * scales[r] + float;
    }
  }
  return y;
}
