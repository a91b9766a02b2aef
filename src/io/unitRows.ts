import { heldToTheEnd } from "./heldToTheEnd.js";

/**
 * Rows of a stack of units, experts or heads, one behind the other, of which a unit is read whole and held until its last row.
 * @param rows of a unit @param cols of a row
 * @param readUnit f32 [rows, cols]
 * @returns f32 [count, cols]
 */
export function unitRows(
  rows: number,
  cols: number,
  readUnit: (unit: number) => Promise<Float32Array>,
): (start: number, count: number) => Promise<Float32Array> {
  const readers = new Map<number, (start: number, count: number) => Promise<Float32Array>>();
  const readerOf = (unit: number) => {
    const reader = readers.get(unit) ?? heldToTheEnd(rows, () => readUnit(unit));
    readers.set(unit, reader);
    return reader;
  };
  return async (start, count) => {
    const out = new Float32Array(count * cols);
    for (let row = start; row < start + count; ) {
      const [unit, within] = [Math.floor(row / rows), row % rows];
      const length = Math.min(rows - within, start + count - row);
      const values = await readerOf(unit)(within, length);
      out.set(values.subarray(within * cols, (within + length) * cols), (row - start) * cols);
      row += length;
    }
    return out;
  };
}
