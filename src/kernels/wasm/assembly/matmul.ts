import { dotByte, nativePrepare, nativeTiles, structureDense, structureInt8Mixed, unpackedBytes } from "../../program/layout";
import { isOutlier, keeps, largestInt8, quantizeGroup, quantizeInt8 } from "./activeInputs";
import { isQuantised, structureOf, unpackedFormat, zeroCode } from "./formats";
import { MatrixPart, Matmul } from "./generated/records";
import { columnBytes, scaleBytes } from "./matvec";
import { multiplyBytes, multiplyFloats, multiplyWide } from "./panelKernels";
import { unpackPanel } from "./panels";
import { addColumn } from "./sparseMatvec";
import { groupRows, unpackGroup } from "./sparsePanel";
import { barrier, ranNative, takeWork, threadCount } from "./sync";

/**
 * out = X·Wᵀ for `tokens` rows of X, in two phases: all threads bring X into the form that the weights want (masked by the
 * thresholds, quantised in groups of 32 for q8 and q4), then take tiles of 64 rows of W. For each group of 32 inputs a tile
 * is unpacked once into a panel in the first-level cache and multiplied with all tokens; the sums stay in the second. With few tokens the
 * memory decides: a thread takes many tiles that lie beside each other, and reads long runs of rows of one group after the other.
 */
export function matmul(a: Matmul, thread: i32): void {
  const record = changetype<usize>(a);
  if (!ranNative(nativePrepare, record)) prepare(a, thread);
  barrier();
  if (!ranNative(nativeTiles, record)) multiplyTiles(a, thread);
}

/** Bytes of X as it is prepared for one part. */
// @ts-ignore: decorator
@inline
function bytesOfInput(a: Matmul): usize {
  return preparedBytes(unpackedFormat(a.format), a.dot == dotByte, (a.tokens + 3) & ~3, (a.cols + 31) >> 5);
}

function prepare(a: Matmul, thread: i32): void {
  const groups = (a.cols + 31) >> 5;
  const format = unpackedFormat(a.format);
  const byteDot = a.dot == dotByte;
  const size = bytesOfInput(a);
  const parts = a.partsLength;
  const threads = threadCount();

  for (let p = 0; p < parts; p++) {
    const part = a.parts(p);
    if (part.prepares == 0) continue;
    const prepared = a.inputs + part.input * size;
    for (let g = thread; g < groups; g += threads) prepareGroup(a, part, prepared, g, groups, format, byteDot, panelOf(a, thread));
  }
}

function multiplyTiles(a: Matmul, thread: i32): void {
  const groups = (a.cols + 31) >> 5;
  const byteDot = a.dot == dotByte;
  const size = bytesOfInput(a);
  const parts = a.partsLength;
  const atOnce = tilesAtOnce(a);
  let item = takeWork();
  let first = 0;
  for (let p = 0; p < parts; p++) {
    const part = a.parts(p);
    const tiles = tilesOf(part);
    const items = (tiles + atOnce - 1) / atOnce;
    for (; item < first + items; item = takeWork()) {
      const start = atOnce * (item - first);
      const prepared = a.inputs + part.input * size;
      multiplyRun(a, part, <usize>start << 6, min(atOnce, tiles - start), prepared, groups, a.format, byteDot, thread);
    }
    first += items;
  }
}

// @ts-ignore: decorator
@inline
function tilesOf(part: MatrixPart): i32 {
  return (<i32>part.rows + 63) >> 6;
}

/** From so many tokens on the sums of several tiles would no longer stay in the first-level cache. */
const mostFewTokens = 16;
/** Of one group of a tile: 64 rows of 32 f32, or of codes and their scales. */
const panelOfGroup: usize = 64 * 32 * 4 + 256;

/** Tiles that a thread takes together: few enough for the scratch, and for every thread to have some work. */
function tilesAtOnce(a: Matmul): i32 {
  if (a.tokens > mostFewTokens) return 1;
  let all = 0;
  for (let p = 0; p < a.partsLength; p++) all += tilesOf(a.parts(p));
  const left = a.scratchBytes - panelOfGroup - (structureOf(a.format) == structureDense ? 0 : unpackedBytes);
  return max(1, min(<i32>(left / ((<usize>((a.tokens + 3) & ~3)) << 8)), all / (4 * threadCount())));
}

/** The calling thread's scratch. */
// @ts-ignore: decorator
@inline
function panelOf(a: Matmul, thread: i32): usize {
  return a.scratch + <usize>thread * a.scratchBytes;
}

/** Bytes of one prepared input of 32 numbers. */
// @ts-ignore: decorator
@inline
function runBytes(format: i32, byteDot: bool): usize {
  return isQuantised(format) ? (byteDot ? 32 : 64) : 128;
}

/** Prepared X: codes [groups][tokens][32], then (quantised) f32 scale and i32 Σ codes [groups][tokens]. */
function preparedBytes(format: i32, byteDot: bool, tokens: i32, groups: i32): usize {
  return <usize>(tokens * groups) * (runBytes(format, byteDot) + 8);
}

function prepareGroup(a: Matmul, part: MatrixPart, prepared: usize, group: i32, groups: i32, format: i32, byteDot: bool, scratch: usize): void {
  const x = a.x;
  const xStride = a.xStride;
  const tokens = a.tokens;
  const cols = a.cols;
  const threshold = part.threshold;
  const sparseFrom = part.sparseFromRow;
  const padded = (tokens + 3) & ~3;
  const run = runBytes(format, byteDot);
  const valid = min(cols - (group << 5), 32);
  let codes = prepared + <usize>(group * padded) * run;
  let meta = prepared + <usize>(groups * padded) * run + ((<usize>(group * padded)) << 3);
  for (let t = 0; t < padded; t++) {
    const row = x + ((<usize>t * xStride + <usize>(group << 5)) << 2);
    const limit: f32 = t >= sparseFrom ? threshold : -1;
    const present = t < tokens ? valid : 0;
    if (structureOf(a.format) == structureInt8Mixed) {
      const top: f32 = t < tokens ? largestInt8(x + ((<usize>t * xStride) << 2), cols, limit) : 0;
      quantizeInt8(row, present, limit, top, codes, !byteDot, meta);
    } else if (isQuantised(format)) quantizeGroup(row, present, limit, codes, !byteDot, meta, scratch);
    else {
      for (let k = 0; k < 32; k++) {
        const value: f32 = k < present ? load<f32>(row + ((<usize>k) << 2)) : 0;
        store<f32>(codes + ((<usize>k) << 2), keeps(value, limit) ? value : 0);
      }
    }
    codes += run;
    meta += 8;
  }
}

/** `tiles` tiles of W from row `start` on (fewer rows at the end of a part) times all tokens. */
function multiplyRun(
  a: Matmul, part: MatrixPart, start: usize, tiles: i32, prepared: usize, groups: i32, packed: i32, byteDot: bool, thread: i32,
): void {
  const format = unpackedFormat(packed);
  const isSparse = structureOf(packed) != structureDense;
  const tokens = a.tokens;
  const padded = (tokens + 3) & ~3;
  const rows = a.paddedRows;
  const panel = panelOf(a, thread);
  const unpacked = panel + panelOfGroup;
  const sums = isSparse ? unpacked + unpackedBytes : unpacked;
  const partRows = part.rows;
  const tileSums = (<usize>padded) << 8;

  const scale = scaleBytes(format, rows);
  const groupBytes = scale + (columnBytes(format, rows) << 5);
  const run = runBytes(format, byteDot);
  const metas = prepared + <usize>(groups * padded) * run;
  memory.fill(sums, 0, <usize>tiles * tileSums);
  for (let g = 0; g < groups; g++) {
    const codes = prepared + <usize>(g * padded) * run;
    const meta = metas + ((<usize>(g * padded)) << 3);
    for (let n = 0; n < tiles; n++) {
      const row = start + (<usize>n << 6);
      const blocks = <i32>((min(<usize>64, partRows - row) + 7) >> 3);
      const own = sums + <usize>n * tileSums;
      if (isSparse) {
        unpackGroup(packed, part.weights, (partRows + 31) & ~31, a.cols, g, row, unpacked);
        unpackPanel(format, byteDot, unpacked, groupRows, 0, blocks, panel);
      } else {
        const source = a.weights + <usize>g * groupBytes;
        unpackPanel(format, byteDot, source, rows, part.packedRow + row, blocks, panel);
      }
      if (!isQuantised(format)) multiplyFloats(panel, codes, own, padded, blocks);
      else if (byteDot) multiplyBytes(panel, codes, meta, own, padded, blocks, zeroCode(packed));
      else multiplyWide(panel, codes, meta, own, padded, blocks, zeroCode(packed));
      if (structureOf(packed) == structureInt8Mixed) addOutliers(a, part, g, unpacked, own, <usize>blocks << 3);
    }
  }
  for (let n = 0; n < tiles; n++) {
    const row = start + (<usize>n << 6);
    writeTile(a, sums + <usize>n * tileSums, tokens, part.firstOutput + row, min(<usize>64, partRows - row));
  }
}

/** sums[t] += x · W over the inputs of one group that LLM.int8() leaves to floating point. @param unpacked the group's 64 rows */
function addOutliers(a: Matmul, part: MatrixPart, group: i32, unpacked: usize, sums: usize, rows: usize): void {
  const tokens = a.tokens;
  const valid = min(a.cols - (group << 5), 32);
  for (let t = 0; t < tokens; t++) {
    const x = a.x + ((<usize>t * a.xStride + <usize>(group << 5)) << 2);
    const limit: f32 = t >= part.sparseFromRow ? part.threshold : -1;
    for (let i = 0; i < valid; i++) {
      const value = load<f32>(x + ((<usize>i) << 2));
      if (!isOutlier(value, limit)) continue;
      addColumn(sums + ((<usize>t) << 8), unpacked, unpacked + (groupRows << 1) + <usize>i * groupRows, value, rows);
    }
  }
}

/** out[t][first …] = sums[t] (+ bias) (+ out). */
function writeTile(a: Matmul, sums: usize, tokens: i32, first: usize, count: usize): void {
  const outStride = a.outStride;
  const bias = a.bias;
  const accumulate = a.accumulate != 0;
  for (let t = 0; t < tokens; t++) {
    const out = a.out + ((<usize>t * outStride + first) << 2);
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
