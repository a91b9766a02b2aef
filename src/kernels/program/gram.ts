import * as layout from "./layout.js";
import { matmulScratchBytes } from "./matmulScratch.js";
import type { ProgramActivation } from "./storage.js";

/** Rows of the gram that one operation takes, as in `linear`. */
const rowsPerOperation = 128;
/** Tokens are summed in groups of as many as a panel has inputs. */
const tokenGroup = 32;

/**
 * Records gram += xᵀ·x on and above the diagonal (and some of what is below). The rows of x are the columns of an
 * input-major f32 matrix with one output per channel, so the matrix-matrix kernel multiplies with x as it lies there; the
 * other factor is a transposed copy of x. What is recorded runs first, because that copy is made here.
 */
export function addGram(gram: ProgramActivation, x: ProgramActivation, threads: number, dot: number): void {
  const arena = gram.block.home;
  arena.run();
  const { cols } = x;
  const tokens = Math.ceil(x.rows / tokenGroup) * tokenGroup;
  const floatBytes = cols * tokens * 4;
  // Rows beyond x must be zeros that can be read.
  const copyBytes = tokens === x.rows ? 0 : floatBytes;
  const inputBytes = rowsPerOperation * tokens * 4 + rowsPerOperation * (tokens / tokenGroup) * 8;
  const threadBytes = matmulScratchBytes(rowsPerOperation, false);
  const scratch = arena.scratch(floatBytes + copyBytes + inputBytes + threads * threadBytes + 64);
  const inputs = scratch + floatBytes + copyBytes;

  const source = x.readIn(arena);
  const floats = arena.floats(source, (x.rows - 1) * x.stride + cols);
  const transposed = arena.floats(scratch, cols * tokens);
  transpose(floats, x.stride, x.rows, cols, transposed, tokens);
  let weights = source;
  let stride = x.stride;
  if (copyBytes > 0) {
    weights = scratch + floatBytes;
    stride = cols;
    const copy = arena.floats(weights, cols * tokens);
    copy.fill(0, x.rows * cols);
    for (let t = 0; t < x.rows; t++) copy.set(floats.subarray(t * x.stride, t * x.stride + cols), t * cols);
  }

  const out = gram.readIn(arena);
  for (let row = 0; row < cols; row += rowsPerOperation) {
    const rows = Math.min(rowsPerOperation, cols - row);
    const whole = { threshold: -1, sparseFromRow: rows, packedRow: row, firstOutput: row, rows: cols - row };
    arena.record("matmul", {
      x: scratch + row * tokens * 4,
      xStride: tokens,
      tokens: rows,
      cols: tokens,
      weights,
      paddedRows: stride,
      format: layout.formatF32,
      dot,
      inputs,
      scratch: inputs + inputBytes,
      scratchBytes: threadBytes,
      out: out + row * gram.stride * 4,
      outStride: gram.stride,
      bias: 0,
      accumulate: true,
      parts: [{ ...whole, input: 0, prepares: true, weights: 0 }],
    });
  }
}

/** Columns that are transposed together: their lines stay in the first-level cache. */
const stripe = 16;

/** to [cols, toStride] = fromᵀ, with zeros after the rows of `from` [rows, cols]. */
function transpose(
  from: Float32Array,
  fromStride: number,
  rows: number,
  cols: number,
  to: Float32Array,
  toStride: number,
): void {
  for (let c0 = 0; c0 < cols; c0 += stripe) {
    const c1 = Math.min(cols, c0 + stripe);
    for (let t = 0; t < rows; t++) {
      for (let c = c0; c < c1; c++) to[c * toStride + t] = from[t * fromStride + c];
    }
  }
  if (toStride === rows) return;
  for (let c = 0; c < cols; c++) to.fill(0, c * toStride + rows, (c + 1) * toStride);
}
