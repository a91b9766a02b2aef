import { rowsOfShape } from "../../tensor/internal.js";
import type { Weights } from "../weights.js";

/** About this many values are held at a time. */
const chunkValues = 2 ** 20;

/** Reads a tensor from front to back, whole rows at a time. */
export async function* rowChunks(
  { shape, readRows }: Weights,
  signal?: AbortSignal,
): AsyncIterable<{ start: number; count: number; values: Float32Array }> {
  const { rows, cols } = rowsOfShape(shape);
  const step = Math.max(1, Math.floor(chunkValues / cols));
  for (let start = 0; start < rows; start += step) {
    signal?.throwIfAborted();
    const count = Math.min(step, rows - start);
    yield { start, count, values: await readRows(start, count) };
  }
}
