import { dotByte, formatBitmaskBf16, formatInt8Mixed, formatQ8, panelBytes, unpackedBytes } from "../layout";
import { isOutlier, largestInt8, quantizeGroup, quantizeInt8 } from "./activeInputs";
import { columnBytes, scaleBytes } from "./matvec";
import { multiplyBytes, multiplyFloats, multiplyWide } from "./panelKernels";
import { unpackPanel } from "./panels";
import { addColumn } from "./sparseMatvec";
import { groupRows, unpackedFormat, unpackGroup, zeroCode } from "./sparsePanel";
import { barrier, takeWork, threadCount } from "./sync";

/**
 * out = X·Wᵀ for `tokens` rows of X, in two phases: all threads bring X into the form that the weights want (masked by the
 * thresholds, quantised in groups of 32 for q8 and q4), then take tiles of 64 rows of W. For each group of 32 inputs a tile
 * is unpacked once into a panel in the first-level cache and multiplied with all tokens; the sums stay in the second.
 *
 * @param a x, xStride, tokens, cols, weights, paddedRows, format, dot, inputs (prepared X, one after the other), scratch (per thread:
 *   a panel and f32 [tokens rounded up to 4][64]), scratchStride, out, outStride, bias or 0, accumulate, parts;
 *   then per part: f32 threshold, first sparse row, first padded row (in formats that leave zeros out, the part's weights), first output, rows, which prepared X it uses, whether it
 *   makes it. Strides of x and out in floats.
 */
export function matmul(a: usize, thread: i32): void {
  const tokens = load<i32>(a, 8);
  const groups = (load<i32>(a, 12) + 31) >> 5;
  const packed = load<i32>(a, 24);
  const format = unpackedFormat(packed);
  const byteDot = load<i32>(a, 28) == dotByte;
  const inputs = <usize>load<u32>(a, 32);
  const parts = load<i32>(a, 60);
  const size = preparedBytes(format, byteDot, (tokens + 3) & ~3, groups);
  const threads = threadCount();

  for (let p = 0; p < parts; p++) {
    const part = partAt(a, p);
    if (load<i32>(part, 24) == 0) continue;
    const prepared = inputs + <usize>load<u32>(part, 20) * size;
    for (let g = thread; g < groups; g += threads) prepareGroup(a, part, prepared, g, groups, format, byteDot, panelOf(a, thread));
  }
  barrier();

  let item = takeWork();
  let first = 0;
  for (let p = 0; p < parts; p++) {
    const part = partAt(a, p);
    const tiles = (load<i32>(part, 16) + 63) >> 6;
    for (; item < first + tiles; item = takeWork()) {
      multiplyTile(a, part, <usize>(item - first) << 6, inputs + <usize>load<u32>(part, 20) * size, groups, packed, byteDot, thread);
    }
    first += tiles;
  }
}

// @ts-ignore: decorator
@inline
function partAt(a: usize, p: i32): usize {
  return a + 64 + <usize>p * 28;
}

/** The calling thread's scratch. */
// @ts-ignore: decorator
@inline
function panelOf(a: usize, thread: i32): usize {
  return <usize>load<u32>(a, 36) + <usize>thread * <usize>load<u32>(a, 40);
}

/** Bytes of one prepared input of 32 numbers. */
// @ts-ignore: decorator
@inline
function runBytes(format: i32, byteDot: bool): usize {
  return format < formatQ8 ? 128 : byteDot ? 32 : 64;
}

/** Prepared X: codes [groups][tokens][32], then (quantised) f32 scale and i32 Σ codes [groups][tokens]. */
function preparedBytes(format: i32, byteDot: bool, tokens: i32, groups: i32): usize {
  return <usize>(tokens * groups) * (runBytes(format, byteDot) + 8);
}

function prepareGroup(a: usize, part: usize, prepared: usize, group: i32, groups: i32, format: i32, byteDot: bool, scratch: usize): void {
  const x = <usize>load<u32>(a);
  const xStride = <usize>load<u32>(a, 4);
  const tokens = load<i32>(a, 8);
  const cols = load<i32>(a, 12);
  const threshold = load<f32>(part);
  const sparseFrom = load<i32>(part, 4);
  const padded = (tokens + 3) & ~3;
  const run = runBytes(format, byteDot);
  const valid = min(cols - (group << 5), 32);
  let codes = prepared + <usize>(group * padded) * run;
  let meta = prepared + <usize>(groups * padded) * run + ((<usize>(group * padded)) << 3);
  for (let t = 0; t < padded; t++) {
    const row = x + ((<usize>t * xStride + <usize>(group << 5)) << 2);
    const limit: f32 = t >= sparseFrom ? threshold : -1;
    const present = t < tokens ? valid : 0;
    if (load<i32>(a, 24) == formatInt8Mixed) {
      const top: f32 = t < tokens ? largestInt8(x + ((<usize>t * xStride) << 2), cols, limit) : 0;
      quantizeInt8(row, present, limit, top, codes, !byteDot, meta);
    } else if (format >= formatQ8) quantizeGroup(row, present, limit, codes, !byteDot, meta, scratch);
    else {
      for (let k = 0; k < 32; k++) {
        const value: f32 = k < present ? load<f32>(row + ((<usize>k) << 2)) : 0;
        store<f32>(codes + ((<usize>k) << 2), abs(value) > limit ? value : 0);
      }
    }
    codes += run;
    meta += 8;
  }
}

/** 64 rows of W (fewer at the end of a part) times all tokens. */
function multiplyTile(
  a: usize, part: usize, tileStart: usize, prepared: usize, groups: i32, packed: i32, byteDot: bool, thread: i32,
): void {
  const format = unpackedFormat(packed);
  const isSparse = packed >= formatBitmaskBf16;
  const tokens = load<i32>(a, 8);
  const padded = (tokens + 3) & ~3;
  const rows = <usize>load<u32>(a, 20);
  const panel = panelOf(a, thread);
  const unpacked = panel + panelBytes;
  const sums = isSparse ? unpacked + unpackedBytes : unpacked;
  const place = <usize>load<u32>(part, 8);
  const partRows = <usize>load<i32>(part, 16);
  const count = min(<usize>64, partRows - tileStart);
  const blocks = <i32>((count + 7) >> 3);

  const scale = scaleBytes(format, rows);
  const groupBytes = scale + (columnBytes(format, rows) << 5);
  const run = runBytes(format, byteDot);
  const metas = prepared + <usize>(groups * padded) * run;
  memory.fill(sums, 0, (<usize>padded) << 8);
  for (let g = 0; g < groups; g++) {
    if (isSparse) {
      unpackGroup(packed, place, (partRows + 31) & ~31, load<i32>(a, 12), g, tileStart, unpacked);
      unpackPanel(format, byteDot, unpacked, groupRows, 0, blocks, panel);
    } else {
      const source = <usize>load<u32>(a, 16) + <usize>g * groupBytes;
      unpackPanel(format, byteDot, source, rows, place + tileStart, blocks, panel);
    }
    const codes = prepared + <usize>(g * padded) * run;
    const meta = metas + ((<usize>(g * padded)) << 3);
    if (format < formatQ8) multiplyFloats(panel, codes, sums, padded, blocks);
    else if (byteDot) multiplyBytes(panel, codes, meta, sums, padded, blocks, zeroCode(packed));
    else multiplyWide(panel, codes, meta, sums, padded, blocks, zeroCode(packed));
    if (packed == formatInt8Mixed) addOutliers(a, part, g, unpacked, sums, <usize>blocks << 3);
  }
  writeTile(a, sums, tokens, <usize>load<u32>(part, 12) + tileStart, count);
}

/** sums[t] += x · W over the inputs of one group that LLM.int8() leaves to floating point. @param unpacked the group's 64 rows */
function addOutliers(a: usize, part: usize, group: i32, unpacked: usize, sums: usize, rows: usize): void {
  const tokens = load<i32>(a, 8);
  const valid = min(load<i32>(a, 12) - (group << 5), 32);
  for (let t = 0; t < tokens; t++) {
    const x = <usize>load<u32>(a) + ((<usize>t * <usize>load<u32>(a, 4) + <usize>(group << 5)) << 2);
    const limit: f32 = t >= load<i32>(part, 4) ? load<f32>(part) : -1;
    for (let i = 0; i < valid; i++) {
      const value = load<f32>(x + ((<usize>i) << 2));
      if (!isOutlier(value, limit)) continue;
      addColumn(sums + ((<usize>t) << 8), unpacked, unpacked + (groupRows << 1) + <usize>i * groupRows, value, rows);
    }
  }
}

/** out[t][first …] = sums[t] (+ bias) (+ out). */
function writeTile(a: usize, sums: usize, tokens: i32, first: usize, count: usize): void {
  const outStride = <usize>load<u32>(a, 48);
  const bias = <usize>load<u32>(a, 52);
  const accumulate = load<i32>(a, 56) != 0;
  for (let t = 0; t < tokens; t++) {
    const out = <usize>load<u32>(a, 44) + ((<usize>t * outStride + first) << 2);
    const source = sums + ((<usize>t) << 8);
    let i: usize = 0;
    for (; i + 4 <= count; i += 4) {
      let v = v128.load(source + (i << 2));
      if (bias != 0) v = f32x4.add(v, v128.load(bias + ((first + i) << 2)));
      if (accumulate) v = f32x4.add(v, v128.load(out + (i << 2)));
      v128.store(out + (i << 2), v);
    }
    for (; i < count; i++) {
      let v = load<f32>(source + (i << 2));
      if (bias != 0) v += load<f32>(bias + ((first + i) << 2));
      if (accumulate) v += load<f32>(out + (i << 2));
      store<f32>(out + (i << 2), v);
    }
  }
}
