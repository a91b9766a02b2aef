import {
  activeInputsScratchBytes, dotByte, formatBf16, formatF32, formatQ4, formatQ8, groupRecordBytes, nativeMatvec, structureDense,
} from "../../program/layout";
import { listFloat, listQuantized } from "./activeInputs";
import { groupBf16, groupF32, groupQ4Byte, groupQ4Wide, groupQ8Byte, groupQ8Wide } from "./columns";
import { addCounts } from "./counts";
import { isQuantised, structureOf } from "./formats";
import { Matvec } from "./generated/records";
import { multiplySparseSlice } from "./sparseMatvec";
import { barrier, ranNative, takeWork, threadCount } from "./sync";

/** y[start, end) += what the record of active inputs lists of a group. @param codes what the offsets of the record count from */
// @ts-ignore: decorator
@inline
export function addGroup(
  format: i32, byteDot: bool, y: usize, scales: usize, codes: usize, record: usize, sums: usize, start: usize, end: usize,
): void {
  if (format == formatQ8) {
    if (byteDot) groupQ8Byte(y, scales, codes, record, sums, start, end);
    else groupQ8Wide(y, scales, codes, record, sums, start, end);
  } else if (format == formatQ4) {
    if (byteDot) groupQ4Byte(y, scales, codes, record, sums, start, end);
    else groupQ4Wide(y, scales, codes, record, sums, start, end);
  } else if (format == formatBf16) groupBf16(y, codes, record, start, end);
  else groupF32(y, codes, record, start, end);
}

/** Bytes of one column's codes. `rows` padded to 32. */
// @ts-ignore: decorator
@inline
export function columnBytes(format: i32, rows: usize): usize {
  if (format == formatQ8) return rows;
  if (format == formatQ4) return rows >> 1;
  return format == formatBf16 ? rows << 1 : rows << 2;
}

// @ts-ignore: decorator
@inline
export function scaleBytes(format: i32, rows: usize): usize {
  return isQuantised(format) ? rows << 1 : 0;
}

/**
 * out = W·x for one x, reading the columns of kept inputs only.
 *
 * The inputs are cut into slices, whose number depends on the matrix alone, and where there are many threads the rows into runs; the
 * threads take them as they come free.
 * Every slice has sums of its own that are added in a fixed order at the end, so the result is the same whatever the
 * number of threads. (Cutting the rows makes shorter runs of each column: 15 against 20 GB/s measured.)
 */
export function matvec(a: Matvec, thread: i32): void {
  const slices = a.slices;
  if (!ranNative(nativeMatvec, changetype<usize>(a))) {
    const sparse = structureOf(a.format) != structureDense;
    // Formats that leave zeros out have one run of rows.
    const items = slices * a.rowRuns;
    for (let item = takeWork(); item < items; item = takeWork()) {
      if (sparse) multiplySparseSlice(a, thread, item, slices);
      else multiplySlice(a, thread, item / a.rowRuns, item % a.rowRuns);
    }
  }
  barrier();
  addSlices<Matvec>(a, slices, thread);
}

/** Where run `n` of the rows begins. */
// @ts-ignore: decorator
@inline
export function runStart<T>(a: T, n: i32): usize {
  return (((a.paddedRows >> 5) * <usize>n) / <usize>a.rowRuns) << 5;
}

function multiplySlice(a: Matvec, thread: i32, slice: i32, run: i32): void {
  const slices = a.slices;
  const x = a.x;
  const cols = a.cols;
  const weights = a.weights;
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
  const groupBytes = scale + (column << 5);
  const quantised = isQuantised(format);
  const zero = format == formatQ8 ? 128 : 8;

  let bytes: f64 = 0;
  let offered: f64 = 0;
  let skipped: f64 = 0;
  const runFrom = runStart<Matvec>(a, run);
  const runTo = runStart<Matvec>(a, run + 1);
  memory.fill(y + (runFrom << 2), 0, (runTo - runFrom) << 2);
  const last = (groups * (slice + 1)) / slices;
  for (let g = (groups * slice) / slices; g < last; g++) {
    const scales = weights + <usize>g * groupBytes;
    const codes = scales + scale;
    const input = x + ((<usize>g) << 7);
    const valid = min(cols - (g << 5), 32);
    for (let s = 0; s < segments; s++) {
      const segment = a.segments(s);
      const start = max(segment.firstRow, runFrom);
      const end = min(segment.endRow, runTo);
      if (start >= end) continue;
      const threshold = segment.threshold;
      let count: i32;
      if (quantised) count = listQuantized(record, input, valid, threshold, column, zero, scratch);
      else count = listFloat(record, input, valid, threshold, column, scratch);
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
      if (count == 0) continue;
      addGroup(format, byteDot, y, scales, codes, record, sums, start, end);
    }
  }
  addCounts(thread, bytes, offered, skipped);
}

/** out = Σ slices (+ bias) (+ out), part by part: the padding between parts is dropped here. @param a Matvec or ColumnsMatvec */
export function addSlices<T>(a: T, slices: i32, thread: i32): void {
  const sums = a.sums;
  const plane = a.paddedRows << 2;
  const out = a.out;
  const bias = a.bias;
  const accumulate = a.accumulate != 0;
  const parts = a.partsLength;
  const threads = threadCount();
  for (let p = 0; p < parts; p++) {
    const part = a.parts(p);
    const source = sums + (part.packedRow << 2);
    const target = part.firstOutput << 2;
    const count = part.rows;
    const quads = (count + 3) >> 2;
    let i = ((quads * thread) / threads) << 2;
    const end = min(((quads * (thread + 1)) / threads) << 2, count);
    for (; i + 4 <= end; i += 4) {
      const at = (<usize>i) << 2;
      let v = v128.load(source + at);
      for (let s: usize = 1; s < <usize>slices; s++) v = f32x4.add(v, v128.load(source + at + s * plane));
      if (bias != 0) v = f32x4.add(v, v128.load(bias + target + at));
      if (accumulate) v = f32x4.add(v, v128.load(out + target + at));
      v128.store(out + target + at, v);
    }
    for (; i < end; i++) {
      const at = (<usize>i) << 2;
      let v = load<f32>(source + at);
      for (let s: usize = 1; s < <usize>slices; s++) v += load<f32>(source + at + s * plane);
      if (bias != 0) v += load<f32>(bias + target + at);
      if (accumulate) v += load<f32>(out + target + at);
      store<f32>(out + target + at, v);
    }
  }
}

/** One weight of a packed matrix as f32: row `row` of input `col`. For embeddings. */
export function weightAt(format: i32, weights: usize, rows: usize, row: usize, col: usize): f32 {
  const column = columnBytes(format, rows);
  const groupStart = weights + (col >> 5) * (scaleBytes(format, rows) + (column << 5));
  const codes = groupStart + scaleBytes(format, rows) + (col & 31) * column;
  const interleaved = (row & ~7) | ((row & 3) << 1) | ((row >> 2) & 1);
  if (format == formatF32) return load<f32>(codes + (row << 2));
  if (format == formatBf16) return reinterpret<f32>(<u32>load<u16>(codes + (interleaved << 1)) << 16);
  const scale = reinterpret<f32>(<u32>load<u16>(groupStart + (interleaved << 1)) << 16);
  if (format == formatQ8) return scale * <f32>(<i32>load<u8>(codes + row) - 128);
  const pair = <i32>load<u8>(codes + ((row >> 5) << 4) + (row & 15));
  return scale * <f32>(((row & 16) != 0 ? pair >> 4 : pair & 15) - 8);
}
