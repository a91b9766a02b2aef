import {
  activeInputsScratchBytes, controlCounters, dotByte, formatBf16, formatF32, formatQ4, formatQ8, groupRecordBytes, inputSlices,
} from "../layout";
import { listFloat, listQuantized } from "./activeInputs";
import { groupBf16, groupF32, groupQ4Byte, groupQ4Wide, groupQ8Byte, groupQ8Wide } from "./columns";
import { barrier, threadCount } from "./sync";

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
  return format >= formatQ8 ? rows << 1 : 0;
}

/**
 * out = W·x for one x, reading the columns of kept inputs only.
 *
 * The inputs are cut into `inputSlices` slices whose sums are added in a fixed order at the end, so the result does not
 * depend on the number of threads. Threads first share the slices, so that each reads whole columns; further threads
 * share the rows.
 *
 * @param a x, cols, weights, paddedRows, format, dot, sums (f32 [slices][paddedRows]), scratch (per thread: an active-input list,
 *   what making it takes, i32 [tileRows]), scratchStride, out, bias or 0, accumulate, counts, segments, parts;
 *   then per segment: f32 threshold, first row, end row (padded), counts (1 if inputs are to be counted), parts in it;
 *   then per part: first padded row, first output, rows.
 */
export function matvec(a: usize, thread: i32): void {
  const x = <usize>load<u32>(a);
  const cols = load<i32>(a, 4);
  const weights = <usize>load<u32>(a, 8);
  const rows = <usize>load<u32>(a, 12);
  const format = load<i32>(a, 16);
  const byteDot = load<i32>(a, 20) == dotByte;
  const slices = <usize>load<u32>(a, 24);
  const record = <usize>load<u32>(a, 28) + <usize>(thread * load<i32>(a, 32));
  const segments = load<i32>(a, 52);
  const segmentAt = a + 60;

  const threads = threadCount();
  const shares = threads % 4 == 0 ? 4 : threads % 2 == 0 ? 2 : 1;
  const rowShares = threads / shares;
  const share = thread % shares;
  const rowShare = thread / shares;
  const blocks = <i32>(rows >> 5);
  const from = <usize>((blocks * rowShare) / rowShares) << 5;
  const to = <usize>((blocks * (rowShare + 1)) / rowShares) << 5;

  const groups = (cols + 31) >> 5;
  const column = columnBytes(format, rows);
  const scale = scaleBytes(format, rows);
  const groupBytes = scale + (column << 5);
  const zero = format == formatQ8 ? 128 : 8;
  const scratch = record + groupRecordBytes;
  const sums = scratch + activeInputsScratchBytes;

  let bytes: f64 = 0;
  let offered: f64 = 0;
  let skipped: f64 = 0;
  for (let slice = (share * inputSlices) / shares; slice < ((share + 1) * inputSlices) / shares; slice++) {
    const y = slices + <usize>slice * (rows << 2);
    memory.fill(y + (from << 2), 0, (to - from) << 2);
    const last = (groups * (slice + 1)) / inputSlices;
    for (let g = (groups * slice) / inputSlices; g < last; g++) {
      const scales = weights + <usize>g * groupBytes;
      const codes = scales + scale;
      const input = x + ((<usize>g) << 7);
      const valid = min(cols - (g << 5), 32);
      for (let s = 0; s < segments; s++) {
        const segment = segmentAt + <usize>s * 20;
        const start = max(from, <usize>load<u32>(segment, 4));
        const end = min(to, <usize>load<u32>(segment, 8));
        if (start >= end) continue;
        const threshold = load<f32>(segment);
        let count: i32;
        if (format >= formatQ8) count = listQuantized(record, input, valid, threshold, column, zero, scratch);
        else count = listFloat(record, input, valid, threshold, column, scratch);
        if (load<i32>(segment, 12) != 0) {
          const share: f64 = <f64>(end - start) / <f64>rows;
          const parts = load<i32>(segment, 16);
          // Every input is counted once, by the thread that has the first rows of the segment.
          if (start == <usize>load<u32>(segment, 4)) {
            offered += <f64>(valid * parts);
            skipped += <f64>((valid - count) * parts);
          }
          bytes += share * (<f64>count * <f64>column + (count > 0 ? <f64>scale : 0));
        }
        if (count == 0) continue;
        if (format == formatQ8) {
          if (byteDot) groupQ8Byte(y, scales, codes, record, sums, start, end);
          else groupQ8Wide(y, scales, codes, record, sums, start, end);
        } else if (format == formatQ4) {
          if (byteDot) groupQ4Byte(y, scales, codes, record, sums, start, end);
          else groupQ4Wide(y, scales, codes, record, sums, start, end);
        } else if (format == formatBf16) groupBf16(y, codes, record, start, end);
        else groupF32(y, codes, record, start, end);
      }
    }
  }
  const counter = <usize>controlCounters + ((<usize>thread) << 6);
  store<f64>(counter, load<f64>(counter) + bytes);
  store<f64>(counter, load<f64>(counter, 8) + offered, 8);
  store<f64>(counter, load<f64>(counter, 16) + skipped, 16);

  barrier();
  addSlices(a, segmentAt + <usize>segments * 20, slices, rows, thread, threads);
}

/** out = Σ slices (+ bias) (+ out), part by part: the padding between parts is dropped here. */
function addSlices(a: usize, partAt: usize, sums: usize, rows: usize, thread: i32, threads: i32): void {
  const out = <usize>load<u32>(a, 36);
  const bias = <usize>load<u32>(a, 40);
  const accumulate = load<i32>(a, 44) != 0;
  const parts = load<i32>(a, 56);
  const plane = rows << 2;
  for (let p = 0; p < parts; p++) {
    const part = partAt + <usize>p * 12;
    const first = <usize>load<u32>(part);
    const target = <usize>load<u32>(part, 4);
    const count = load<i32>(part, 8);
    const quads = (count + 3) >> 2;
    let i = ((quads * thread) / threads) << 2;
    const end = min(((quads * (thread + 1)) / threads) << 2, count);
    for (; i + 4 <= end; i += 4) {
      const source = sums + ((first + i) << 2);
      let v = f32x4.add(
        f32x4.add(v128.load(source), v128.load(source + plane)),
        f32x4.add(v128.load(source + 2 * plane), v128.load(source + 3 * plane)),
      );
      const at = (target + i) << 2;
      if (bias != 0) v = f32x4.add(v, v128.load(bias + at));
      if (accumulate) v = f32x4.add(v, v128.load(out + at));
      v128.store(out + at, v);
    }
    for (; i < end; i++) {
      const source = sums + ((first + i) << 2);
      let v = load<f32>(source) + load<f32>(source + plane) + (load<f32>(source + 2 * plane) + load<f32>(source + 3 * plane));
      const at = (target + i) << 2;
      if (bias != 0) v += load<f32>(bias + at);
      if (accumulate) v += load<f32>(out + at);
      store<f32>(out + at, v);
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
