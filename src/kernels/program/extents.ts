import { padded } from "../../pack/index.js";
import type { Operands } from "./encode.js";
import * as layout from "./layout.js";
import type { OperationName } from "./records.js";

/** Bytes that an operation reads or writes from `start` on. */
interface Extent {
  what: string;
  start: number;
  byteLength: number;
}

const columnBytes: readonly number[] = [4, 2, 1, 0.5];
const hasScales = (dense: number) => dense === layout.formatQ8 || dense === layout.formatQ4;

/** Of a matrix in a dense format; undefined in others, which no native kernel takes. */
function denseBytes(format: number, cols: number, paddedRows: number): number | undefined {
  if (format >> layout.structureShift !== layout.structureDense) return undefined;
  return (
    padded(cols) * paddedRows * columnBytes[format] + (hasScales(format) ? (padded(cols) / 32) * paddedRows * 2 : 0)
  );
}

/** WebAssembly stops at the end of its memory; native kernels do not, so what they are given is looked at before. */
const extentsOf: { readonly [O in OperationName]?: (a: Operands<O>) => Extent[] } = {
  matvec: ({ x, cols, weights, paddedRows, format, sums, slices, segments }) => {
    const byteLength = denseBytes(format, cols, paddedRows);
    const rows = segments.map(({ firstRow, endRow }) => ({
      what: "rows",
      start: firstRow,
      byteLength: endRow - firstRow,
    }));
    if (
      rows.some(({ start, byteLength }) => start % 32 !== 0 || byteLength % 32 !== 0 || start + byteLength > paddedRows)
    )
      throw new RangeError(`matvec: rows that are not of the ${paddedRows}`);
    return [
      { what: "x", start: x, byteLength: cols * 4 },
      { what: "sums", start: sums, byteLength: slices * paddedRows * 4 },
      ...(byteLength === undefined ? [] : [{ what: "weights", start: weights, byteLength }]),
    ];
  },
};

/** @throws RangeError where an operation would reach beyond a memory of `memoryBytes`: a fault of this package */
export function checkExtents<O extends OperationName>(op: O, operands: Operands<O>, memoryBytes: number): void {
  const extents = (extentsOf[op] as ((a: Operands<O>) => Extent[]) | undefined)?.(operands) ?? [];
  for (const { what, start, byteLength } of extents) {
    if (!(start >= layout.heapStart && byteLength >= 0 && start + byteLength <= memoryBytes))
      throw new RangeError(`${op}: ${what} at ${start}, ${byteLength} bytes long, in a memory of ${memoryBytes}`);
  }
}
