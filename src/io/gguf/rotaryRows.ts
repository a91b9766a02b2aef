/**
 * The order of the rows of q and k. Files of the architecture "llama" rotate neighbouring rows (2i, 2i + 1) of a head, Hugging
 * Face's rotate halves (i, i + headDim / 2); the rows are moved so that both compute the same.
 */

/** The row of a GGUF file that holds row `row` of a Hugging Face checkpoint. */
export function neighbourRow(row: number, headDim: number): number {
  const within = row % headDim;
  const half = headDim / 2;
  return row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

/** Rows of whole heads in one order from rows in the other. @param bytes whole heads, `rowBytes` a row */
export function reorderRows(
  bytes: Uint8Array,
  rowBytes: number,
  headDim: number,
  direction: "toHalves" | "toNeighbours",
): Uint8Array {
  const out = new Uint8Array(bytes.byteLength);
  for (let row = 0; row < bytes.byteLength / rowBytes; row++) {
    const other = neighbourRow(row, headDim);
    const [from, to] = direction === "toHalves" ? [other, row] : [row, other];
    out.set(bytes.subarray(from * rowBytes, (from + 1) * rowBytes), to * rowBytes);
  }
  return out;
}
