import { f32FromBf16 } from "../../tensor/index.js";
import { padded } from "../format.js";
import { interleaved8 } from "./dense.js";
import { bf16Up, roundToEven } from "./quantized.js";
import { damaged, type SparseFormat, type SparsePacker } from "./sparseFormat.js";

const id = "int8-mixed";
const zero = 128;

/** Inputs of at least this magnitude are not rounded to 8 bits (Dettmers et al. 2022). */
export const int8Outlier = 6;

/**
 * LLM.int8() (Dettmers et al., arXiv 2208.07339): 8-bit weights with one scale per row, inputs rounded to 8 bits with one
 * scale per product, except those of magnitude 6 and more, which are multiplied in floating point. Which inputs those are is
 * found out at run time, for every row of x by itself, so that a token gives the same whatever else is in its batch.
 *
 *   bf16 [rows]            scales max|w| / 127, rounded up, in the order of `interleaved8`
 *   u8 [cols][rows]        codes, 128 + round(w / scale)
 *
 * Rows and inputs are padded to 32. Unlike the other formats it rounds weights in its own way, and leaves nothing out.
 */
const layout = (rows: number, cols: number) => {
  const paddedRows = padded(rows);
  return { paddedRows, codesAt: paddedRows * 2, byteLength: paddedRows * (2 + padded(cols)) };
};

const packer = (rows: number, cols: number): SparsePacker => {
  const { paddedRows, codesAt, byteLength } = layout(rows, cols);
  const largest = new Float32Array(paddedRows);
  const floats = (chunk: Uint8Array) => {
    const { buffer, byteOffset, byteLength } = chunk.byteOffset % 4 === 0 ? chunk : chunk.slice();
    return new Float32Array(buffer, byteOffset, byteLength >> 2);
  };
  return {
    byteLength,
    measure(chunk, start, count) {
      const weights = floats(chunk);
      const stride = padded(count);
      for (let c = 0; c < cols; c++) {
        for (let r = 0; r < count; r++) {
          // Math.max hands on what is not a number.
          largest[start + r] = Math.max(largest[start + r], Math.abs(weights[c * stride + r]));
        }
      }
    },
    write(chunk, start, count, into) {
      const weights = floats(chunk);
      const stride = padded(count);
      const inverses = new Float32Array(stride);
      for (let r = 0; r < stride; r++) {
        const row = start + r;
        const scaleBits = bf16Up(Math.fround(largest[row] / (zero - 1)));
        const at = interleaved8(row) * 2;
        into[at] = scaleBits;
        into[at + 1] = scaleBits >> 8;
        const scale = f32FromBf16(scaleBits);
        inverses[r] = scale > 0 ? 1 / scale : 0;
      }
      for (let c = 0; c < padded(cols); c++) {
        const to = codesAt + c * paddedRows + start;
        if (c >= cols) into.fill(zero, to, to + stride);
        else
          for (let r = 0; r < stride; r++)
            into[to + r] = zero + roundToEven(Math.fround(weights[c * stride + r] * inverses[r]));
      }
    },
  };
};

export const int8Mixed: SparseFormat = {
  id,
  structure: "int8-mixed",
  // Whether it serves is a question of quality: nothing chooses it by its time.
  timedAt: [],
  value: "f32",
  multipliedAs: "q8",
  packer,

  unpack(bytes, rows, cols) {
    const { paddedRows, codesAt, byteLength } = layout(rows, cols);
    if (bytes.byteLength !== byteLength) throw damaged(id, rows, cols, `${bytes.byteLength} bytes`, `${byteLength}`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const out = new Float32Array(rows * cols);
    for (let r = 0; r < rows; r++) {
      const scale = f32FromBf16(view.getUint16(interleaved8(r) * 2, true));
      for (let c = 0; c < cols; c++) out[r * cols + c] = (bytes[codesAt + c * paddedRows + r] - zero) * scale;
    }
    return out;
  },

  /** The scales are read once, whatever is kept. */
  bytesRead(_bytes, rows, cols, kept) {
    const { paddedRows } = layout(rows, cols);
    let total = paddedRows * 2;
    for (let c = 0; c < cols; c++) if (kept(c)) total += paddedRows;
    return total;
  },

  expectedBytes: (rows, cols) => layout(rows, cols).byteLength,
};
