import {
  activeInputsScratchBytes, dotByte, formatBf16, formatF32, formatQ8, groupRecordBytes, nativeRows, roundedGroupBytes, rowsAtOnce, rowsScratchBytes,
} from "../../program/layout";
import { listFloat, listQuantized, quantizeGroup } from "./activeInputs";
import { dotBytes } from "./columns";
import { addCounts } from "./counts";
import { isQuantised } from "./formats";
import { ColumnsMatvec, RowsMatvec } from "./generated/records";
import { mulAdd } from "./math";
import { addGroup, addSlices, columnBytes, runStart, scaleBytes } from "./matvec";
import { barrier, ranNative, takeWork } from "./sync";

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

/** Of one thread: a list of active inputs, what making it takes, the codes of a group of some rows, f32 [slices][rowsAtOnce], u32 [rowsAtOnce]. */
const codesAt: usize = groupRecordBytes + activeInputsScratchBytes;
const sumsAt: usize = codesAt + rowsAtOnce * 128;
const listAt: usize = sumsAt + rowsAtOnce * 16;

/** out[outputs[i]] = x · row i, of those with an open gate where there are gates. */
export function rowsMatvec(a: RowsMatvec, thread: i32): void {
  if (ranNative(nativeRows, changetype<usize>(a))) return;
  const count = a.count;
  const tiles = (count + rowsAtOnce - 1) / rowsAtOnce;
  const coded = isQuantised(a.format);
  const scratch = a.scratch + <usize>(thread * a.scratchBytes);
  let read = 0;
  let prepared = false;
  for (let tile = takeWork(); tile < tiles; tile = takeWork()) {
    const rows = listOpen(a, tile * rowsAtOnce, count, scratch + listAt);
    read += rows;
    if (!coded) {
      multiplyRows(a, scratch, rows);
      continue;
    }
    if (!prepared) roundInputs(a, scratch, scratch + rowsScratchBytes);
    prepared = true;
    multiplyCodedRows(a, scratch + listAt, scratch + rowsScratchBytes, rows);
  }
  if (a.gate != 0) addCounts(thread, <f64>read * <f64>a.rowBytes, 0, 0);
}

/** Lists the rows of a tile that are to be multiplied; the others give 0. */
function listOpen(a: RowsMatvec, first: i32, count: i32, list: usize): i32 {
  const gate = a.gate;
  let rows = 0;
  for (let i = first; i < min(count, first + rowsAtOnce); i++) {
    store<u32>(list + ((<usize>rows) << 2), i);
    // A NaN is open: it must show.
    if (gate == 0 || !(load<f32>(gate + ((<usize>i) << 2)) <= 0)) rows++;
    else store<f32>(outputOf(a, i), 0);
  }
  return rows;
}

// @ts-ignore: decorator
@inline
function outputOf(a: RowsMatvec, i: i32): usize {
  const output = a.outputs == 0 ? <u32>i : load<u32>(a.outputs + ((<usize>i) << 2));
  return a.out + ((<usize>output) << 2);
}

// @ts-ignore: decorator
@inline
function rowAt(a: RowsMatvec, list: usize, n: i32): usize {
  return <usize>load<u32>(a.rows + ((<usize>load<u32>(list + ((<usize>n) << 2))) << 2));
}

/** Rows of numbers are turned into the columns of a small matrix, a group at a time, for the kernels of columns. */
function multiplyRows(a: RowsMatvec, record: usize, rows: i32): void {
  if (rows == 0) return;
  const half = a.format == formatBf16;
  const cols = a.cols;
  const slices = a.slices;
  const groups = (cols + 31) >> 5;
  const list = record + listAt;
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
        const row = rowAt(a, list, r) + ((<usize>g) << (half ? 6 : 7));
        if (half) turnBf16(row, valid, codes + (<usize>interleaved(r) << 1), column);
        else turnF32(row, valid, codes + ((<usize>r) << 2), column);
      }
      addGroup(half ? formatBf16 : formatF32, false, y, 0, codes, record, 0, 0, <usize>((rows + 31) & ~31));
    }
  }
  for (let r = 0; r < rows; r++) {
    let v = load<f32>(sums + ((<usize>r) << 2));
    for (let s: usize = 1; s < <usize>slices; s++) v += load<f32>(sums + ((<usize>r) << 2) + s * (rowsAtOnce << 2));
    store<f32>(outputOf(a, <i32>load<u32>(list + ((<usize>r) << 2))), v);
  }
}

/** Of a group of inputs: i8 or i16 [32], f32 scale, i32 sum. */
const scaleAt: usize = 64;

/** All inputs rounded to 8 bits, as the kernels of columns round them. */
function roundInputs(a: RowsMatvec, scratch: usize, rounded: usize): void {
  const cols = a.cols;
  const wide = a.dot != dotByte;
  for (let g = 0; g << 5 < cols; g++) {
    const to = rounded + <usize>(g * roundedGroupBytes);
    quantizeGroup(a.x + ((<usize>g) << 7), min(cols - (g << 5), 32), a.threshold, to, wide, to + scaleAt, scratch + groupRecordBytes);
  }
}

/** Four rows side by side; integer sums are exact, and are scaled and added in the order of columns.ts. */
function multiplyCodedRows(a: RowsMatvec, list: usize, rounded: usize, rows: i32): void {
  const q8 = a.format == formatQ8;
  const byteDot = a.dot == dotByte;
  const groups = (a.cols + 31) >> 5;
  const slices = a.slices;
  const codes: usize = <usize>((groups + 1) >> 1) << 2;
  const zero = q8 ? 128 : 8;
  const last = rows - 1;
  for (let r = 0; r < rows; r += 4) {
    const p0 = rowAt(a, list, r);
    const p1 = rowAt(a, list, min(r + 1, last));
    const p2 = rowAt(a, list, min(r + 2, last));
    const p3 = rowAt(a, list, min(r + 3, last));
    let total = f32x4.splat(0);
    for (let slice = 0; slice < slices; slice++) {
      let y = f32x4.splat(0);
      const end = (groups * (slice + 1)) / slices;
      for (let g = (groups * slice) / slices; g < end; g++) {
        const x = rounded + <usize>(g * roundedGroupBytes);
        const at = codes + ((<usize>g) << (q8 ? 5 : 4));
        const sums = addAcross(
          dotCodes(x, p0 + at, q8, byteDot), dotCodes(x, p1 + at, q8, byteDot),
          dotCodes(x, p2 + at, q8, byteDot), dotCodes(x, p3 + at, q8, byteDot),
        );
        const whole = i32x4.add(sums, i32x4.splat(-zero * load<i32>(x, scaleAt + 4)));
        const s = (<usize>g) << 1;
        const scales = i32x4.shl(
          i32x4.replace_lane(
            i32x4.replace_lane(
              i32x4.replace_lane(i32x4.splat(load<u16>(p0 + s)), 1, load<u16>(p1 + s)), 2, load<u16>(p2 + s),
            ), 3, load<u16>(p3 + s),
          ), 16,
        );
        y = mulAdd(f32x4.mul(f32x4.convert_i32x4_s(whole), v128.load32_splat(x, scaleAt)), scales, y);
      }
      total = slice == 0 ? y : f32x4.add(total, y);
    }
    store<f32>(outputOf(a, <i32>load<u32>(list + ((<usize>r) << 2))), f32x4.extract_lane(total, 0));
    if (r < last) store<f32>(outputOf(a, <i32>load<u32>(list + ((<usize>r) << 2), 4)), f32x4.extract_lane(total, 1));
    if (r + 1 < last) store<f32>(outputOf(a, <i32>load<u32>(list + ((<usize>r) << 2), 8)), f32x4.extract_lane(total, 2));
    if (r + 2 < last) store<f32>(outputOf(a, <i32>load<u32>(list + ((<usize>r) << 2), 12)), f32x4.extract_lane(total, 3));
  }
}

/** Sums over 32 unsigned codes times rounded inputs, spread over four lanes. No copies of it: they would weigh more than calls cost. */
function dotCodes(x: usize, codes: usize, q8: bool, byteDot: bool): v128 {
  const first = v128.load(codes);
  const low = q8 ? first : v128.and(first, i8x16.splat(15));
  const high = q8 ? v128.load(codes, 16) : i8x16.shr_u(first, 4);
  if (ASC_FEATURE_RELAXED_SIMD && byteDot) return dotBytes(v128.load(x, 16), high, dotBytes(v128.load(x), low, i32x4.splat(0)));
  return i32x4.add(
    i32x4.add(
      i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(low), v128.load(x)),
      i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(low), v128.load(x, 16)),
    ),
    i32x4.add(
      i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(high), v128.load(x, 32)),
      i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(high), v128.load(x, 48)),
    ),
  );
}

/** The sum of the lanes of each. */
// @ts-ignore: decorator
@inline
function addAcross(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = i32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return i32x4.add(v128.shuffle<i32>(ab, cd, 0, 1, 4, 5), v128.shuffle<i32>(ab, cd, 2, 3, 6, 7));
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
