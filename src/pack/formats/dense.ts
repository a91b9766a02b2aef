import { bf16FromF32, f32FromBf16 } from "../../tensor/index.js";
import { checkLength, padded, type WeightFormat } from "../format.js";

/** f32 [paddedCols][paddedRows]: the transpose, padded. */
export const f32: WeightFormat = {
  id: "f32",
  bitsPerWeight: 32,
  byteLength: (rows, cols) => padded(rows) * padded(cols) * 4,
  columnBytes: (rows) => padded(rows) * 4,
  groupScaleBytes: () => 0,
  pack(weights, rows, cols) {
    const stride = padded(rows);
    const out = new Float32Array(stride * padded(cols));
    forEachStripe(cols, (first, end) => {
      for (let r = 0; r < rows; r++) for (let c = first; c < end; c++) out[c * stride + r] = weights[r * cols + c];
    });
    return new Uint8Array(out.buffer);
  },
  unpack(bytes, rows, cols) {
    checkLength(f32, bytes, rows, cols);
    const stride = padded(rows);
    const codes = new Float32Array(bytes.slice().buffer);
    const out = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[r * cols + c] = codes[c * stride + r];
    return out;
  },
};

/**
 * bf16 [paddedCols][paddedRows] in blocks of 8 rows: 32-bit word k of a block holds row k in its low half and row k + 4
 * in its high half, so that one shift and one mask widen 8 weights to two f32 vectors.
 */
export const bf16: WeightFormat = {
  id: "bf16",
  bitsPerWeight: 16,
  byteLength: (rows, cols) => padded(rows) * padded(cols) * 2,
  columnBytes: (rows) => padded(rows) * 2,
  groupScaleBytes: () => 0,
  pack(weights, rows, cols) {
    const stride = padded(rows);
    const out = new Uint16Array(stride * padded(cols));
    forEachStripe(cols, (first, end) => {
      for (let r = 0; r < rows; r++) {
        const row = interleaved8(r);
        for (let c = first; c < end; c++) out[c * stride + row] = bf16FromF32(weights[r * cols + c]);
      }
    });
    return new Uint8Array(out.buffer);
  },
  unpack(bytes, rows, cols) {
    checkLength(bf16, bytes, rows, cols);
    const stride = padded(rows);
    const codes = new Uint16Array(bytes.slice().buffer);
    const out = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < cols; c++) out[r * cols + c] = f32FromBf16(codes[c * stride + interleaved8(r)]);
    return out;
  },
};

/** Columns that are transposed together: the lines they are written to stay in the cache. */
function forEachStripe(cols: number, transpose: (first: number, end: number) => void): void {
  for (let first = 0; first < cols; first += 32) transpose(first, Math.min(first + 32, cols));
}

/** Where row r of a run of bf16 numbers lies: within its block of 8, rows k and k + 4 are neighbours. */
export function interleaved8(row: number): number {
  return (row & ~7) | ((row & 3) << 1) | ((row >> 2) & 1);
}
