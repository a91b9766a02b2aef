import { nativeProduct, productColumns, productDepth, productRows, productScratchBytes } from "../../../program/layout";
import { mulAdd } from "../math";
import { ranNative, takeWork, threadCount } from "../sync";
import { Step } from "./step";

// C = alpha · A · B (+ base) in f32. Factors are copied into panels, `productDepth` of the sums at a time; a sum is made in its order,
// each product added with one rounding (with two in the baseline build), parts of a depth one after the other. So results depend
// neither on how C is cut nor on the kernel: native ones (native/product.h) give the same bits.

// @ts-ignore: decorator
@unmanaged
export class Product extends Step {
  rows: u32;
  columns: u32;
  depth: u32;
  // In fours, as all that follow up to cHead.
  aStride: u32;
  bStride: u32;
  cStride: u32;
  aOffset: u32;
  bOffset: u32;
  cOffset: u32;
  aBatch: u32;
  bBatch: u32;
  cBatch: u32;
  aHead: u32;
  bHead: u32;
  cHead: u32;
  heads: u32;
  bGroup: u32;
  causal: u32;
  accumulate: u32;
  alpha: f32;
  runCount: u32;
  c: usize;
  a: usize;
  b: usize;
  base: usize;
  /** Of a product by runs. */
  runs: usize;
}

// As in cpu/forms.ts.
const layoutNt: u32 = 0;
const layoutTn: u32 = 2;
const byRuns: u32 = 4;
// As `causalParts`.
const causalResult: u32 = 1;
const causalLeft: u32 = 2;
const causalLeftTransposed: u32 = 3;

/** Of C, what a register tile has. */
const tileRows: u32 = 6;
const tileColumns: u32 = 8;
/** Rows that a causal matrix is cut into. */
const causalRows: u32 = 64;
/** Fewer rows or columns are not worth copying the other factor for once more. */
const leastPiece: u32 = 192;

// @ts-ignore: decorator
@inline
function pieces(extent: u32, wanted: u32): u32 {
  return max<u32>(1, min<u32>(wanted, extent / leastPiece));
}

/** Where piece n of an extent begins: at a multiple of 64, so that causal parts are whole. */
// @ts-ignore: decorator
@inline
function pieceStart(extent: u32, n: u32, count: u32): u32 {
  return n == count ? extent : ((extent * n) / count) & ~63;
}

export function product(p: Product, thread: i32): void {
  if (ranNative(nativeProduct, changetype<usize>(p))) return;
  const isByRuns = (p.variant & byRuns) != 0;
  const sumsRuns = isByRuns && (p.variant & 3) == layoutTn;
  const matrices = isByRuns ? p.runCount : p.gridZ;
  // A thread has two pieces, so that none waits long for another; one has all.
  const threads = <u32>threadCount();
  const wanted = threads == 1 || isByRuns ? 1 : (2 * threads + matrices - 1) / matrices;
  const acrossRows = pieces(p.rows, wanted);
  const acrossColumns = pieces(p.columns, (wanted + acrossRows - 1) / acrossRows);
  const each = acrossRows * acrossColumns;
  for (let item = <u32>takeWork(); item < matrices * each; item = <u32>takeWork()) {
    const matrix = item / each;
    const piece = item % each;
    const batch = isByRuns ? 0 : matrix / p.heads;
    const head = isByRuns ? 0 : matrix % p.heads;
    let a = p.a + (<usize>(p.aOffset + batch * p.aBatch + head * p.aHead) << 4);
    let b = p.b + (<usize>(p.bOffset + batch * p.bBatch + (head / p.bGroup) * p.bHead) << 4);
    let at = <usize>(p.cOffset + batch * p.cBatch + head * p.cHead) << 4;
    let rows = p.rows;
    let depth = p.depth;
    if (isByRuns) {
      const first = load<u32>(p.runs + (<usize>matrix << 2));
      const count = (load<u32>(p.runs + (<usize>(p.runCount + 1 + matrix) << 2)) + 3) & ~3;
      a += (<usize>first * p.aStride) << 4;
      if (sumsRuns) {
        depth = count;
        b += (<usize>first * p.bStride) << 4;
        at += <usize>(matrix * p.cBatch) << 4;
      } else {
        rows = count;
        b += <usize>(matrix * p.bBatch) << 4;
        at += (<usize>first * p.cStride) << 4;
      }
    }
    multiply(
      p, a, b, at, depth,
      pieceStart(rows, piece / acrossColumns, acrossRows),
      pieceStart(rows, piece / acrossColumns + 1, acrossRows),
      pieceStart(p.columns, piece % acrossColumns, acrossColumns),
      pieceStart(p.columns, (piece % acrossColumns) + 1, acrossColumns),
      p.scratch + <usize>thread * productScratchBytes,
    );
  }
}

/** Rows [m0, m1) and columns [n0, n1) of one matrix C, which begins `at` bytes behind those of c and base. */
function multiply(
  p: Product, a: usize, b: usize, at: usize, depth: u32, m0: u32, m1: u32, n0: u32, n1: u32, scratch: usize,
): void {
  const layout = p.variant & 3;
  const aStride = <usize>p.aStride << 4;
  const bStride = <usize>p.bStride << 4;
  const cStride = <usize>p.cStride << 4;
  const alpha = f32x4.splat(p.alpha);
  const left = scratch;
  const right = scratch + <usize>(4 * productRows * productDepth);
  const step: u32 = p.causal == 0 ? productRows : causalRows;
  for (let n = n0; n < n1; n += productColumns) {
    const nEnd = min<u32>(n + productColumns, n1);
    // Once also for no depth at all: sums of nothing are 0.
    for (let k: u32 = 0; k == 0 || k < depth; k += productDepth) {
      const kEnd = min<u32>(k + productDepth, depth);
      if (layout == layoutNt) packAcross(right, b + <usize>n * bStride + (<usize>k << 2), bStride, nEnd - n, kEnd - k, tileColumns);
      else packAlong(right, b + <usize>k * bStride + (<usize>n << 2), bStride, nEnd - n, kEnd - k, tileColumns);
      for (let m = m0; m < m1; m += step) {
        const mEnd = min<u32>(m + step, m1);
        // What of the depth counts for these rows, and whether it is the first of it.
        let kFrom = k;
        let kTo = kEnd;
        let begins = k == 0;
        let columnsEnd = nEnd;
        if (p.causal == causalResult) columnsEnd = min<u32>(nEnd, m + causalRows);
        else if (p.causal == causalLeft) kTo = min<u32>(kTo, m + causalRows);
        else if (p.causal == causalLeftTransposed) {
          kFrom = max<u32>(kFrom, m);
          begins = k <= m && m < k + productDepth;
        }
        if ((kFrom >= kTo && !begins) || columnsEnd <= n) continue;
        const count = kFrom < kTo ? kTo - kFrom : 0;
        if (layout == layoutTn) packAlong(left, a + <usize>kFrom * aStride + (<usize>m << 2), aStride, mEnd - m, count, tileRows);
        else packAcross(left, a + <usize>m * aStride + (<usize>kFrom << 2), aStride, mEnd - m, count, tileRows);
        // What is added: what stood there, the base, or nothing.
        const addend = begins ? (p.accumulate != 0 ? p.base : 0) : p.c;
        for (let j = n; j < columnsEnd; j += tileColumns) {
          const panel = right + ((<usize>(j - n) * (kEnd - k) + (kFrom - k) * tileColumns) << 2);
          for (let i = m; i < mEnd; i += tileRows) {
            const place = at + <usize>i * cStride + (<usize>j << 2);
            tile(
              count, left + ((<usize>(i - m) * count) << 2), panel, p.c + place,
              addend == 0 ? 0 : addend + place, cStride, alpha, min<u32>(mEnd - i, tileRows), min<u32>(columnsEnd - j, tileColumns),
            );
          }
        }
      }
    }
  }
}

/** Panels [width] of a factor whose rows lie along the depth: [k][width] each, what is missing of the last filled up with 0. */
function packAcross(to: usize, from: usize, stride: usize, extent: u32, depth: u32, width: u32): void {
  const next = <usize>width << 2;
  for (let i: u32 = 0; i < extent; i += width) {
    const rows = min<u32>(width, extent - i);
    const panel = to + ((<usize>i * depth) << 2);
    if (rows < width) memory.fill(panel, 0, (<usize>width * depth) << 2);
    for (let r: u32 = 0; r < rows; r += 2) {
      // Of an odd number of rows the last goes twice: nothing behind it is read.
      const more: usize = r + 1 < rows ? stride : 0;
      let x = from + <usize>(i + r) * stride;
      let y = panel + (<usize>r << 2);
      for (let k: u32 = 0; k < depth; k += 4) {
        const v = v128.load(x);
        const w = v128.load(x + more);
        const low = v128.shuffle<i32>(v, w, 0, 4, 1, 5);
        const high = v128.shuffle<i32>(v, w, 2, 6, 3, 7);
        v128.store64_lane(y, low, 0);
        v128.store64_lane(y + next, low, 1);
        v128.store64_lane(y + 2 * next, high, 0);
        v128.store64_lane(y + 3 * next, high, 1);
        x += 16;
        y += 4 * next;
      }
    }
  }
}

/** The same for a factor whose rows lie across the depth. */
function packAlong(to: usize, from: usize, stride: usize, extent: u32, depth: u32, width: u32): void {
  const next = <usize>width << 2;
  for (let i: u32 = 0; i < extent; i += width) {
    const columns = min<u32>(width, extent - i);
    let y = to + ((<usize>i * depth) << 2);
    if (columns < width) memory.fill(y, 0, next * depth);
    let x = from + (<usize>i << 2);
    const bytes = <usize>columns << 2;
    for (let k: u32 = 0; k < depth; k++) {
      for (let c: usize = 0; c < bytes; c += 8) store<u64>(y + c, load<u64>(x + c));
      x += stride;
      y += next;
    }
  }
}

// @ts-ignore: decorator
@inline
function put(at: usize, addend: usize, sum: v128, alpha: v128): void {
  sum = f32x4.mul(alpha, sum);
  v128.store(at, addend == 0 ? sum : f32x4.add(sum, v128.load(addend)));
}

// @ts-ignore: decorator
@inline
function putRow(at: usize, addend: usize, low: v128, high: v128, alpha: v128, columns: u32): void {
  put(at, addend, low, alpha);
  if (columns > 4) put(at + 16, addend == 0 ? 0 : addend + 16, high, alpha);
}

/** A tile of C: panels of `depth` with each other, in registers. @param addend 0: none */
function tile(
  depth: u32, a: usize, b: usize, c: usize, addend: usize, stride: usize, alpha: v128, rows: u32, columns: u32,
): void {
  let low0 = f32x4.splat(0), low1 = low0, low2 = low0, low3 = low0, low4 = low0, low5 = low0;
  let high0 = low0, high1 = low0, high2 = low0, high3 = low0, high4 = low0, high5 = low0;
  for (let k: u32 = 0; k < depth; k++) {
    const x = v128.load(b);
    const y = v128.load(b, 16);
    let w = v128.load_splat<f32>(a);
    low0 = mulAdd(w, x, low0);
    high0 = mulAdd(w, y, high0);
    w = v128.load_splat<f32>(a, 4);
    low1 = mulAdd(w, x, low1);
    high1 = mulAdd(w, y, high1);
    w = v128.load_splat<f32>(a, 8);
    low2 = mulAdd(w, x, low2);
    high2 = mulAdd(w, y, high2);
    w = v128.load_splat<f32>(a, 12);
    low3 = mulAdd(w, x, low3);
    high3 = mulAdd(w, y, high3);
    w = v128.load_splat<f32>(a, 16);
    low4 = mulAdd(w, x, low4);
    high4 = mulAdd(w, y, high4);
    w = v128.load_splat<f32>(a, 20);
    low5 = mulAdd(w, x, low5);
    high5 = mulAdd(w, y, high5);
    a += 24;
    b += 32;
  }
  const next: usize = addend == 0 ? 0 : stride;
  putRow(c, addend, low0, high0, alpha, columns);
  if (rows > 1) putRow(c + stride, addend + next, low1, high1, alpha, columns);
  if (rows > 2) putRow(c + 2 * stride, addend + 2 * next, low2, high2, alpha, columns);
  if (rows > 3) putRow(c + 3 * stride, addend + 3 * next, low3, high3, alpha, columns);
  if (rows > 4) putRow(c + 4 * stride, addend + 4 * next, low4, high4, alpha, columns);
  if (rows > 5) putRow(c + 5 * stride, addend + 5 * next, low5, high5, alpha, columns);
}
