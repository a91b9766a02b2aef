import {
  activeInputsScratchBytes, dotByte, formatBf16, formatF32, formatQ8, groupRecordBytes, rowsAtOnce,
} from "../../program/layout";
import { listFloat, listQuantized } from "./activeInputs";
import { addCounts } from "./counts";
import { isQuantised } from "./formats";
import { ColumnsMatvec, RowsMatvec } from "./generated/records";
import { addGroup, addSlices, columnBytes, runStart, scaleBytes } from "./matvec";
import { barrier, takeWork } from "./sync";

// Products of one row with weights of which some lie in memory, one by one wherever there was room. They add in the order of
// matvec.ts, so that the results have the same bits.

/** A run of groups of out = W·x, where W lies in columns. */
export function columnsMatvec(a: ColumnsMatvec, thread: i32): void {
  const slices = a.slices;
  const items = slices * a.rowRuns;
  for (let item = takeWork(); item < items; item = takeWork()) multiplySlice(a, thread, item / a.rowRuns, item % a.rowRuns);
  barrier();
  if (a.endGroup == (a.cols + 31) >> 5) addSlices<ColumnsMatvec>(a, slices, thread);
}

function multiplySlice(a: ColumnsMatvec, thread: i32, slice: i32, run: i32): void {
  const slices = a.slices;
  const cols = a.cols;
  const rows = a.paddedRows;
  const format = a.format;
  const byteDot = a.dot == dotByte;
  const y = a.sums + <usize>slice * (rows << 2);
  const record = a.scratch + <usize>(thread * a.scratchBytes);
  const scratch = record + groupRecordBytes;
  const sums = scratch + activeInputsScratchBytes;
  const segments = a.segmentsLength;
  const groups = (cols + 31) >> 5;
  const column = columnBytes(format, rows);
  const scale = scaleBytes(format, rows);
  const quantised = isQuantised(format);
  const zero = format == formatQ8 ? 128 : 8;
  let bytes: f64 = 0;
  let offered: f64 = 0;
  let skipped: f64 = 0;
  const runFrom = runStart<ColumnsMatvec>(a, run);
  const runTo = runStart<ColumnsMatvec>(a, run + 1);
  if (a.firstGroup == 0) memory.fill(y + (runFrom << 2), 0, (runTo - runFrom) << 2);
  const last = min((groups * (slice + 1)) / slices, a.endGroup);
  for (let g = max((groups * slice) / slices, a.firstGroup); g < last; g++) {
    const scales = a.scales + <usize>g * scale;
    const input = a.x + ((<usize>g) << 7);
    const columns = a.columns + ((<usize>g) << 7);
    const valid = min(cols - (g << 5), 32);
    for (let s = 0; s < segments; s++) {
      const segment = a.segments(s);
      const start = max(segment.firstRow, runFrom);
      const end = min(segment.endRow, runTo);
      if (start >= end) continue;
      const threshold = segment.threshold;
      let count: i32;
      if (quantised) count = listQuantized(record, input, valid, threshold, column, zero, scratch, columns);
      else count = listFloat(record, input, valid, threshold, column, scratch, columns);
      if (segment.counts != 0) {
        // Once for all runs of rows.
        if (start == segment.firstRow) {
          const parts = segment.parts;
          offered += <f64>(valid * parts);
          skipped += <f64>((valid - count) * parts);
        }
        const share: f64 = <f64>(end - start) / <f64>rows;
        bytes += share * (<f64>count * <f64>column + (count > 0 ? <f64>scale : 0));
      }
      // Offsets are addresses here.
      if (count > 0) addGroup(format, byteDot, y, scales, 0, record, sums, start, end);
    }
  }
  addCounts(thread, bytes, offered, skipped);
}

/** Of one thread: a list of active inputs, what making it takes, the codes of a group of some rows, f32 [slices][rowsAtOnce]. */
const codesAt: usize = groupRecordBytes + activeInputsScratchBytes;
const sumsAt: usize = codesAt + rowsAtOnce * 128;

/** out[outputs[i]] = x · row i. Rows are turned into the columns of a small matrix, a group at a time, for the kernels of columns. */
export function rowsMatvec(a: RowsMatvec, thread: i32): void {
  const count = a.count;
  const tiles = (count + rowsAtOnce - 1) / rowsAtOnce;
  for (let tile = takeWork(); tile < tiles; tile = takeWork()) multiplyRows(a, thread, tile * rowsAtOnce, count);
}

function multiplyRows(a: RowsMatvec, thread: i32, first: i32, count: i32): void {
  const rows = min(count - first, rowsAtOnce);
  const half = a.format == formatBf16;
  const cols = a.cols;
  const slices = a.slices;
  const groups = (cols + 31) >> 5;
  const record = a.scratch + <usize>(thread * a.scratchBytes);
  const scratch = record + groupRecordBytes;
  const codes = record + codesAt;
  const sums = record + sumsAt;
  const column: usize = half ? rowsAtOnce << 1 : rowsAtOnce << 2;
  memory.fill(sums, 0, (<usize>slices) * (rowsAtOnce << 2));
  for (let slice = 0; slice < slices; slice++) {
    const y = sums + (<usize>slice) * (rowsAtOnce << 2);
    const last = (groups * (slice + 1)) / slices;
    for (let g = (groups * slice) / slices; g < last; g++) {
      const valid = min(cols - (g << 5), 32);
      const kept = listFloat(record, a.x + ((<usize>g) << 7), valid, a.threshold, column, scratch);
      if (kept == 0) continue;
      for (let r = 0; r < rows; r++) {
        const row = <usize>load<u32>(a.rows + ((<usize>(first + r)) << 2)) + ((<usize>g) << (half ? 6 : 7));
        if (half) turnBf16(row, valid, codes + (<usize>interleaved(r) << 1), column);
        else turnF32(row, valid, codes + ((<usize>r) << 2), column);
      }
      addGroup(half ? formatBf16 : formatF32, false, y, 0, codes, record, 0, 0, <usize>((rows + 31) & ~31));
    }
  }
  for (let r = 0; r < rows; r++) {
    let v = load<f32>(sums + ((<usize>r) << 2));
    for (let s: usize = 1; s < <usize>slices; s++) v += load<f32>(sums + ((<usize>r) << 2) + s * (rowsAtOnce << 2));
    store<f32>(a.out + ((<usize>load<u32>(a.outputs + ((<usize>(first + r)) << 2))) << 2), v);
  }
}

/** Where row `r` lies in a column of bf16. */
// @ts-ignore: decorator
@inline
function interleaved(r: i32): i32 {
  return (r & ~7) | ((r & 3) << 1) | ((r >> 2) & 1);
}

// @ts-ignore: decorator
@inline
function turnBf16(row: usize, valid: i32, to: usize, column: usize): void {
  for (let i = 0; i < valid; i++) store<u16>(to + (<usize>i) * column, load<u16>(row + ((<usize>i) << 1)));
}

// @ts-ignore: decorator
@inline
function turnF32(row: usize, valid: i32, to: usize, column: usize): void {
  for (let i = 0; i < valid; i++) store<u32>(to + (<usize>i) * column, load<u32>(row + ((<usize>i) << 2)));
}
