import {
  activeInputsScratchBytes, dotByte, formatBf16, formatQ8, groupRecordBytes, sparseTileRows, structureBitmask, structureBlock, structureCsr,
  structureInt8Mixed, structureTiledCsl,
} from "../../program/layout";
import { codesAt, isOutlier, keeps, largestInt8, listFloat, listInt8, listQuantized, quantizeGroup, wideAt } from "./activeInputs";
import { groupBf16, groupQ8Byte, groupQ8Wide, pass4, pass8, scaleAndAdd } from "./columns";
import { addCounts } from "./counts";
import { hasScales, structureOf, valueOf } from "./formats";
import { Matvec } from "./generated/records";
import { bf16High, bf16Low, highHalves, mulAdd } from "./math";
import { addBitmaskHalf, addBitmaskQ8Byte, addBitmaskQ8Wide, addTwoOfFourHalf, spreadQ4 } from "./spread";
import { twoOfFourQ4Byte, twoOfFourQ4Wide, twoOfFourQ8Byte, twoOfFourQ8Wide } from "./twoOfFour";

// Matrix-vector products with formats that leave zeros out (src/pack). Every part of a stack is a matrix of its own.

/** Inputs that one pass reads side by side: more streams than this disturb the hardware's prefetchers. */
const passInputs = 8;

// One thread's scratch: the record of the inputs, what making it takes, then as `at…` says.
const slotsAt: usize = groupRecordBytes + activeInputsScratchBytes; // 32 slots of at most 32 bytes
const sumsAt: usize = slotsAt + 1024; // i32 [sparseTileRows]
const tileAt: usize = sumsAt + 4 * sparseTileRows; // u8 [8 inputs][sparseTileRows]
// Block-sparse products: i32 [blockChunk], then f32 [blockChunk].
const blockSumsAt: usize = slotsAt;
// LLM.int8(): the largest input of each part, behind i32 [tileRows].
const topsAt: usize = slotsAt + 8192;
const nibblesAt: usize = tileAt + 8 * sparseTileRows; // 32 bytes and more

/** Tiles of 512 rows in the table of a bitmask. */
// @ts-ignore: decorator
@inline
export function tilesOf(rows: usize): usize {
  return (rows + 511) >> 9;
}

/** Where the scales of a bitmask begin: behind the table. */
// @ts-ignore: decorator
@inline
export function bitmaskScales(weights: usize, rows: usize, cols: i32): usize {
  return weights + ((<usize>cols * tilesOf(rows) + 1) << 2);
}

// @ts-ignore: decorator
@inline
export function scalesSize(format: i32, rows: usize, groups: i32): usize {
  return hasScales(format) ? (rows * <usize>groups) << 1 : 0;
}

export function multiplySparseSlice(a: Matvec, thread: i32, slice: i32, slices: i32): void {
  const x = a.x;
  const cols = a.cols;
  const allRows = a.paddedRows;
  const format = a.format;
  const structure = structureOf(format);
  const byteDot = a.dot == dotByte;
  const y = a.sums + <usize>slice * (allRows << 2);
  const scratch = a.scratch + <usize>(thread * a.scratchBytes);
  const segments = a.segmentsLength;
  const groups = (cols + 31) >> 5;

  let bytes: f64 = 0;
  let offered: f64 = 0;
  let skipped: f64 = 0;
  memory.fill(y, 0, allRows << 2);
  const tops = scratch + topsAt;
  for (let s = 0; structure == structureInt8Mixed && s < segments; s++) {
    const segment = a.segments(s);
    store<f32>(tops + ((<usize>s) << 2), largestInt8(x, cols, segment.threshold));
    if (slice == 0 && segment.counts != 0) bytes += <f64>((segment.endRow - segment.firstRow) << 1);
  }
  const last = (groups * (slice + 1)) / slices;
  for (let g = (groups * slice) / slices; g < last; g++) {
    const valid = min(cols - (g << 5), 32);
    const input = x + ((<usize>g) << 7);
    for (let s = 0; s < segments; s++) {
      const segment = a.segments(s);
      const threshold = segment.threshold;
      const start = segment.firstRow;
      const rows = segment.endRow - start;
      const weights = segment.weights;
      const out = y + (start << 2);
      // Both return kept inputs and bytes read as count · 2^32 + bytes.
      let result: u64;
      if (structure == structureInt8Mixed) {
        result = int8Group(byteDot, out, weights, rows, g, input, valid, threshold, load<f32>(tops + ((<usize>s) << 2)), scratch);
      } else if (structure == structureBitmask) result = bitmaskGroup(format, byteDot, out, weights, rows, cols, groups, g, input, valid, threshold, scratch);
      else if (structure == structureTiledCsl) result = tiledCslGroup(out, weights, rows, cols, g, x, threshold);
      else if (structure == structureCsr) result = csrGroup(out, weights, rows, cols, g, input, valid, threshold);
      else if (structure == structureBlock) {
        result = blockGroup(format, byteDot, out, weights, rows, groups, g, input, valid, threshold, scratch);
      } else result = twoOfFourGroup(format, byteDot, out, weights, rows, groups, g, input, valid, threshold, scratch);
      if (segment.counts == 0) continue;
      offered += <f64>valid;
      skipped += <f64>(valid - <i32>(result >> 32));
      bytes += <f64>(result & 0xffffffff);
    }
  }
  addCounts(thread, bytes, offered, skipped);
}

/** Of a bitmask, the inputs of one group. */
function bitmaskGroup(
  format: i32, byteDot: bool, y: usize, weights: usize, rows: usize, cols: i32, groups: i32, group: i32, x: usize, valid: i32,
  threshold: f32, scratch: usize,
): u64 {
  const tiles = tilesOf(rows);
  const columnBytes = tiles << 2;
  const table = weights + <usize>(group << 5) * columnBytes;
  const scales = bitmaskScales(weights, rows, cols);
  const data = scales + scalesSize(format, rows, groups);
  const slots = scratch + slotsAt;
  let bytes: u64 = 0;
  let count = 0;
  if (valueOf(format) == formatBf16) {
    for (let i = 0; i < valid; i++) {
      store<u8>(scratch + count, <u8>i);
      count += i32(keeps(load<f32>(x + ((<usize>i) << 2)), threshold));
    }
    // As in activeInputs.ts, the inputs of a pass lie far apart and the next pass follows on them.
    const passes = (count + passInputs - 1) / passInputs;
    for (let p = 0; p < passes; p++) {
      let slot = slots;
      for (let n = p; n < count; n += passes) {
        const i = <usize>load<u8>(scratch + n);
        const at = table + i * columnBytes;
        const begin = load<u32>(at);
        store<u32>(slot, <u32>(data + begin));
        store<f32>(slot, load<f32>(x + (i << 2)), 4);
        bytes += load<u32>(at + columnBytes) - begin;
        slot += 8;
      }
      addBitmaskHalf(y, slots, <i32>(slot - slots) >> 3, <i32>(rows >> 5));
    }
    return ((<u64>count) << 32) | bytes;
  }

  const record = scratch;
  const bits = valueOf(format) == formatQ8 ? 8 : 4;
  // Without byte products 8-bit codes are signed, and there is no offset to take out.
  const zero = bits == 4 ? 8 : byteDot ? 128 : 0;
  // Slots hold the index of an input; they become addresses in the data.
  count = listQuantized(record, x, valid, threshold, 1, zero, scratch + groupRecordBytes);
  if (count == 0) return 0;
  const passes = load<i32>(record);
  const present = (passes << 3) + (load<i32>(record, 4) << 2);
  for (let n = 0; n < present; n++) {
    const offset = record + 32 + ((<usize>n) << 2);
    const at = table + <usize>load<u32>(offset) * columnBytes;
    const begin = load<u32>(at);
    store<u32>(slots + ((<usize>n) << 2), <u32>(data + begin));
    if (bits == 4) store<u32>(offset, <u32>(n & 7) * sparseTileRows);
  }
  bytes = <u64>keptBytes(x, valid, threshold, table, columnBytes) + (rows << 1);

  const sums = scratch + sumsAt;
  const tile = scratch + tileAt;
  const xScale = v128.load32_splat(record, 8);
  const startValue = v128.load32_splat(record, 16);
  const groupScales = scales + ((<usize>group * rows) << 1);
  for (let first: usize = 0; first < rows; first += sparseTileRows) {
    const length = min<usize>(sparseTileRows, rows - first);
    const blocks = <i32>(length >> 5);
    for (let at = sums; at < sums + (length << 2); at += 16) v128.store(at, startValue);
    for (let n = 0; bits == 8 && n < present; n += 4) {
      const cursors = slots + ((<usize>n) << 2);
      if (byteDot) addBitmaskQ8Byte(sums, cursors, record + codesAt + <usize>n, blocks);
      else addBitmaskQ8Wide(sums, cursors, record + wideAt + ((<usize>n) << 1), blocks);
    }
    for (let n = 0; bits == 4 && n < present; n += 8) {
      const inPass = min(8, present - n);
      for (let k = 0; k < inPass; k++) {
        const slot = slots + ((<usize>(n + k)) << 2);
        store<u32>(slot, <u32>spreadQ4(load<u32>(slot), blocks, tile + <usize>k * sparseTileRows, scratch + nibblesAt));
      }
      if (inPass == 8) {
        if (byteDot) pass8(8, true, sums, tile, record, <usize>(n >> 3), 0, length);
        else pass8(8, false, sums, tile, record, <usize>(n >> 3), 0, length);
      } else if (byteDot) pass4(8, true, sums, tile, record, <usize>(n >> 3), 0, length);
      else pass4(8, false, sums, tile, record, <usize>(n >> 3), 0, length);
    }
    scaleAndAdd(y + (first << 2), sums, groupScales + (first << 1), xScale, 0, length);
  }
  return ((<u64>count) << 32) | bytes;
}

/** Bytes of the inputs that are kept. */
function keptBytes(x: usize, valid: i32, threshold: f32, table: usize, columnBytes: usize): u32 {
  let bytes: u32 = 0;
  for (let i = 0; i < valid; i++) {
    if (!keeps(load<f32>(x + ((<usize>i) << 2)), threshold)) continue;
    const at = table + <usize>i * columnBytes;
    bytes += load<u32>(at + columnBytes) - load<u32>(at);
  }
  return bytes;
}

/** Of a 2:4 matrix, the inputs of one group. Units of which no input is kept are not read. */
function twoOfFourGroup(
  format: i32, byteDot: bool, y: usize, weights: usize, rows: usize, groups: i32, group: i32, x: usize, valid: i32,
  threshold: f32, scratch: usize,
): u64 {
  const slots = scratch + slotsAt;
  const blocks = <i32>(rows >> 5);
  const blockBytes: usize = valueOf(format) == formatBf16 ? 144 : valueOf(format) == formatQ8 ? 160 : 96;
  const unitBytes = <usize>blocks * blockBytes;
  let count = 0;
  let units = 0;
  if (valueOf(format) == formatBf16) {
    const data = weights + <usize>(group << 3) * unitBytes;
    for (let first = 0; first < valid; first += 4) {
      const slot = slots + ((<usize>units) << 5);
      let kept = 0;
      for (let i = 0; i < 4; i++) {
        const value: f32 = first + i < valid ? load<f32>(x + ((<usize>(first + i)) << 2)) : 0;
        const present = first + i < valid && keeps(value, threshold);
        store<f32>(slot + ((<usize>i) << 2), present ? value : 0, 16);
        kept += i32(present);
      }
      if (kept == 0) continue;
      store<u32>(slot, <u32>(data + <usize>(first >> 2) * unitBytes));
      count += kept;
      units++;
    }
    if (units > 0) addTwoOfFourHalf(y, slots, units, blocks);
    return ((<u64>count) << 32) | (<u64>units * <u64>unitBytes);
  }

  const scales = weights + ((<usize>group * rows) << 1);
  const data = weights + ((<usize>groups * rows) << 1) + <usize>(group << 2) * unitBytes;
  // The inputs as bytes: their codes lie at scratch + 160 (see quantizeGroup), the scale and the sum before them.
  const codes = scratch + codesAt;
  quantizeGroup(x, valid, threshold, codes, false, scratch + 8, scratch + groupRecordBytes);
  const vectors = slots + 16;
  let read: u32 = 0;
  for (let unit = 0; unit < 4; unit++) {
    let kept = 0;
    for (let i = unit << 3; i < min(valid, (unit + 1) << 3); i++) {
      kept += i32(keeps(load<f32>(x + ((<usize>i) << 2)), threshold));
    }
    if (kept > 0) {
      if (units == 0) read = <u32>(data + <usize>unit * unitBytes);
      count += kept;
      units++;
    }
    v128.store(vectors + ((<usize>unit) << 4), v128.load64_zero(codes + ((<usize>unit) << 3)));
    store<u32>(slots + ((<usize>unit) << 2), kept > 0 ? <u32>(data + <usize>unit * unitBytes) : 0);
  }
  if (units == 0) return 0;
  // Units that are not read repeat the first that is, with inputs of 0.
  for (let unit: usize = 0; unit < 4; unit++) {
    if (load<u32>(slots + (unit << 2)) == 0) store<u32>(slots + (unit << 2), read);
  }
  const xScale = load<f32>(scratch, 8);
  if (valueOf(format) == formatQ8) {
    if (byteDot) twoOfFourQ8Byte(y, scales, slots, vectors, xScale, blocks);
    else twoOfFourQ8Wide(y, scales, slots, vectors, xScale, blocks);
  } else if (byteDot) twoOfFourQ4Byte(y, scales, slots, vectors, xScale, blocks);
  else twoOfFourQ4Wide(y, scales, slots, vectors, xScale, blocks);
  return ((<u64>count) << 32) | (<u64>units * <u64>unitBytes + <u64>(rows << 1));
}

/** Of compressed sparse rows of the transpose, the inputs of one group: one weight at a time. */
function csrGroup(y: usize, weights: usize, rows: usize, cols: i32, group: i32, x: usize, valid: i32, threshold: f32): u64 {
  const tiles = tilesOf(rows);
  const data = bitmaskScales(weights, rows, cols);
  let bytes: u64 = 0;
  let count = 0;
  for (let i = 0; i < valid; i++) {
    const value = load<f32>(x + ((<usize>i) << 2));
    if (!keeps(value, threshold)) continue;
    count++;
    let entry = weights + ((<usize>((group << 5) + i) * tiles) << 2);
    let p = data + <usize>load<u32>(entry);
    bytes += load<u32>(entry + (tiles << 2)) - load<u32>(entry);
    for (let tile = y; tile < y + (tiles << 11); tile += 2048) {
      entry += 4;
      const end = data + <usize>load<u32>(entry);
      for (; p < end; p += 4) {
        const word = load<u32>(p);
        const at = tile + ((<usize>word & 0xffff) << 2);
        store<f32>(at, load<f32>(at) + value * reinterpret<f32>(word & 0xffff0000));
      }
    }
  }
  return ((<u64>count) << 32) | bytes;
}

/** Rows that the present blocks of a group are multiplied for at a time; their sums lie in the scratch. */
const blockChunk: usize = 1024;

/**
 * Of a block-sparse matrix, the inputs of one group: a dense group whose rows are those of the present blocks, multiplied
 * into sums of its own, which are then added where the blocks belong.
 */
function blockGroup(
  format: i32, byteDot: bool, y: usize, weights: usize, rows: usize, groups: i32, group: i32, x: usize, valid: i32,
  threshold: f32, scratch: usize,
): u64 {
  const entry = weights + ((<usize>group) << 2);
  const mask = weights + ((<usize>(groups + 1)) << 2) + <usize>load<u32>(entry);
  const maskWords = ((rows >> 5) + 31) >> 5;
  let present: usize = 0;
  for (let w: usize = 0; w < maskWords; w++) present += <usize>popcnt<u32>(load<u32>(mask + (w << 2)));
  present <<= 5;

  const half = valueOf(format) == formatBf16;
  const column = half ? present << 1 : present;
  const scales = mask + (maskWords << 2);
  const codes = half ? scales : scales + (present << 1);
  const count = half
    ? listFloat(scratch, x, valid, threshold, column, scratch + groupRecordBytes)
    : listQuantized(scratch, x, valid, threshold, column, 128, scratch + groupRecordBytes);
  if (count == 0) return 0;
  const integers = scratch + blockSumsAt;
  const sums = integers + (blockChunk << 2);
  let block: usize = 0;
  for (let first: usize = 0; first < present; first += blockChunk) {
    const end = min(first + blockChunk, present);
    memory.fill(sums, 0, (end - first) << 2);
    // The kernels add to y[from, to); here y begins at the chunk.
    const base = sums - (first << 2);
    if (half) groupBf16(base, codes, scratch, first, end);
    else if (byteDot) groupQ8Byte(base, scales, codes, scratch, integers, first, end);
    else groupQ8Wide(base, scales, codes, scratch, integers, first, end);
    for (let at = sums; at < sums + ((end - first) << 2); at += 128) {
      while (((load<u32>(mask + ((block >> 5) << 2)) >> <u32>(block & 31)) & 1) == 0) block++;
      const target = y + (block << 7);
      for (let k: usize = 0; k < 128; k += 16) v128.store(target + k, f32x4.add(v128.load(target + k), v128.load(at + k)));
      block++;
    }
  }
  const bytes = (maskWords << 2) + (half ? 0 : present << 1) + <usize>count * column;
  return ((<u64>count) << 32) | <u64>bytes;
}

/**
 * Of Tiled-CSL, the inputs of one group: each tile of 64 inputs is read for the first group that keeps any of them, by the
 * slice that has this group, and gives the products of both.
 */
function tiledCslGroup(y: usize, weights: usize, rows: usize, cols: i32, group: i32, x: usize, threshold: f32): u64 {
  const across = <usize>((cols + 63) >> 6);
  const down = (rows + 127) >> 7;
  const first = (group >> 1) << 6;
  const own = keptInputs(x, cols, group << 5, threshold);
  const other = keptInputs(x, cols, (group ^ 1) << 5, threshold);
  if (own == 0 || ((group & 1) != 0 && other > 0)) return (<u64>own) << 32;
  const data = weights + ((down * across + 2) << 2);
  let bytes: u64 = 0;
  for (let d: usize = 0; d < down; d++) {
    const entry = weights + ((d * across + <usize>(group >> 1)) << 2);
    const end = data + (<usize>load<u32>(entry, 4) << 4);
    const target = y + (d << 9);
    let p = data + (<usize>load<u32>(entry) << 4);
    bytes += end - p;
    for (; p < end; p += 4) {
      const word = load<u32>(p);
      // Words that fill a four up have the value 0.
      if ((word & 0xffff) == 0) continue;
      const row = word >> 22;
      const value = load<f32>(x + (<usize>(first + <i32>(((word >> 16) & 63) ^ ((row & 7) << 3))) << 2));
      if (!keeps(value, threshold)) continue;
      const at = target + (<usize>row << 2);
      store<f32>(at, load<f32>(at) + value * reinterpret<f32>(word << 16));
    }
  }
  return ((<u64>own) << 32) | bytes;
}

function keptInputs(x: usize, cols: i32, first: i32, threshold: f32): i32 {
  let count = 0;
  for (let i = first; i < min(first + 32, cols); i++) count += i32(keeps(load<f32>(x + ((<usize>i) << 2)), threshold));
  return count;
}

/** Of LLM.int8(), the inputs of one group: those of 8 bits as q8 does it, outliers one by one. */
function int8Group(
  byteDot: bool, y: usize, weights: usize, rows: usize, group: i32, x: usize, valid: i32, threshold: f32, top: f32, scratch: usize,
): u64 {
  const codes = weights + (rows << 1) + <usize>(group << 5) * rows;
  const integers = scratch + slotsAt;
  let count = listInt8(scratch, x, valid, threshold, top, rows, 128, scratch + groupRecordBytes);
  if (count > 0) {
    if (byteDot) groupQ8Byte(y, weights, codes, scratch, integers, 0, rows);
    else groupQ8Wide(y, weights, codes, scratch, integers, 0, rows);
  }
  for (let i = 0; i < valid; i++) {
    const value = load<f32>(x + ((<usize>i) << 2));
    if (!isOutlier(value, threshold)) continue;
    addColumn(y, weights, codes + <usize>i * rows, value, rows);
    count++;
  }
  return ((<u64>count) << 32) | (<u64>count * <u64>rows);
}

/** y[0, rows) += x · scales · (codes − 128). `rows` a multiple of 8; scales bf16 in the order of `interleaved8` */
export function addColumn(y: usize, scales: usize, codes: usize, x: f32, rows: usize): void {
  const high = highHalves();
  const factor = f32x4.splat(x);
  const zero = i16x8.splat(128);
  for (let r: usize = 0; r < rows; r += 8) {
    const code = i16x8.sub(i16x8.extend_low_i8x16_u(v128.load64_zero(codes + r)), zero);
    const scale = v128.load(scales + (r << 1));
    const at = y + (r << 2);
    const near = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(code)), bf16Low(scale));
    const far = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(code)), bf16High(scale, high));
    v128.store(at, mulAdd(near, factor, v128.load(at)));
    v128.store(at, mulAdd(far, factor, v128.load(at, 16)), 16);
  }
}
