import type { RowSource } from "../kernels/index.js";
import { fromFloat32 } from "../tensor/index.js";

/** A matrix in memory, f32 [rows, cols], as weights are loaded from. */
export const denseSource = (name: string, rows: number, cols: number, values: Float32Array): RowSource => ({
  name,
  rows,
  cols,
  dtype: "F32",
  async read(start, count, into) {
    into.set(fromFloat32("F32", values.subarray(start * cols, (start + count) * cols)));
  },
});
