import { exp4, sumLanes } from "../math";
import { lanesWithin, largestLane, nothing, rowsAtOnce, Step, takeOne, takeSome } from "./step";

// @ts-ignore: decorator
@unmanaged
export class ColumnSums extends Step {
  width: u32;
  rows: u32;
  rowsPerPart: u32;
  parts: usize;
  outer: usize;
}

export function columnSums(p: ColumnSums): void {
  const rowBytes = <usize>p.width << 2;
  const whole = rowBytes & ~15;
  for (let part = takeOne(p.gridY); part < p.gridY; part = takeOne(p.gridY)) {
    const first = part * p.rowsPerPart;
    const rows = min<u32>(p.rowsPerPart, p.rows - first);
    const to = p.parts + <usize>part * rowBytes;
    const from = p.outer + <usize>first * rowBytes;
    for (let i: usize = 0; i < whole; i += 16) {
      let sum = f32x4.splat(0);
      let at = from + i;
      for (let row: u32 = 0; row < rows; row++, at += rowBytes) sum = f32x4.add(sum, v128.load(at));
      v128.store(to + i, sum);
    }
    for (let i = whole; i < rowBytes; i += 4) {
      let sum: f32 = 0;
      let at = from + i;
      for (let row: u32 = 0; row < rows; row++, at += rowBytes) sum += load<f32>(at);
      store<f32>(to + i, sum);
    }
  }
}

// @ts-ignore: decorator
@unmanaged
export class CausalSoftmax extends Step {
  positions: u32;
  window: u32;
  scores: usize;
}

// @ts-ignore: decorator
@unmanaged
export class WholeSoftmax extends Step {
  positions: u32;
  scores: usize;
}

// @ts-ignore: decorator
@unmanaged
export class PaddedSoftmax extends Step {
  positions: u32;
  heads: u32;
  scores: usize;
  tokens: usize;
}

// @ts-ignore: decorator
@unmanaged
export class CausalSoftmaxBackward extends Step {
  positions: u32;
  window: u32;
  gradient: usize;
  weights: usize;
}

// @ts-ignore: decorator
@unmanaged
export class SoftmaxBackward extends Step {
  positions: u32;
  gradient: usize;
  weights: usize;
}

function fillZero(from: usize, end: usize): void {
  if (end > from) memory.fill(from, 0, end - from);
}

/** Softmax of columns [first, end) of a row; the others become 0. @param tokens of the text, 0 where filling is seen as well */
function softmaxRow(row: usize, positions: i32, first: i32, end: i32, tokens: usize): void {
  const begin = first & ~3;
  let top = f32x4.splat(nothing);
  const low = f32x4.splat(nothing);
  if (tokens != 0) {
    const filling = f32x4.splat(-1.0e9);
    for (let j = begin; j < end; j += 4) {
      const isFilling = i32x4.eq(v128.load(tokens + (<usize>j << 2)), i32x4.splat(0));
      const at = row + (<usize>j << 2);
      v128.store(at, f32x4.add(v128.load(at), v128.and(filling, isFilling)));
    }
  }
  for (let j = begin; j < end; j += 4) {
    const seen = lanesWithin(j, first, end);
    top = f32x4.max(top, v128.bitselect(v128.load(row + (<usize>j << 2)), low, seen));
  }
  const largest = f32x4.splat(largestLane(top));
  let sum = f32x4.splat(0);
  for (let j = begin; j < end; j += 4) {
    const at = row + (<usize>j << 2);
    const e = v128.and(exp4(f32x4.sub(v128.load(at), largest)), lanesWithin(j, first, end));
    v128.store(at, e);
    sum = f32x4.add(sum, e);
  }
  const scale = f32x4.splat(1 / sumLanes(sum));
  for (let j = begin; j < end; j += 4) {
    const at = row + (<usize>j << 2);
    v128.store(at, f32x4.mul(v128.load(at), scale));
  }
  fillZero(row, row + (<usize>begin << 2));
  fillZero(row + (<usize>((end + 3) & ~3) << 2), row + (<usize>positions << 2));
}

function softmaxBackwardRow(gradient: usize, weights: usize, positions: i32, first: i32, end: i32): void {
  const begin = first & ~3;
  let dot = f32x4.splat(0);
  for (let j = begin; j < end; j += 4) {
    const at = <usize>j << 2;
    const term = f32x4.mul(v128.load(gradient + at), v128.load(weights + at));
    dot = f32x4.add(dot, v128.and(term, lanesWithin(j, first, end)));
  }
  const mean = f32x4.splat(sumLanes(dot));
  for (let j = begin; j < end; j += 4) {
    const at = <usize>j << 2;
    const slope = f32x4.mul(v128.load(weights + at), f32x4.sub(v128.load(gradient + at), mean));
    v128.store(gradient + at, v128.and(slope, lanesWithin(j, first, end)));
  }
  fillZero(gradient, gradient + (<usize>begin << 2));
  fillZero(gradient + (<usize>((end + 3) & ~3) << 2), gradient + (<usize>positions << 2));
}

// Rows of all matrices of scores lie one behind the other: the grid is [positions, matrices].

/** First column that a row sees. @param window columns up to its own; 0: all of the row */
// @ts-ignore: decorator
@inline
function firstSeen(row: u32, positions: u32, window: u32): u32 {
  const end = endSeen(row, positions, window);
  return window == 0 ? 0 : end - min<u32>(end, window);
}

// @ts-ignore: decorator
@inline
function endSeen(row: u32, positions: u32, window: u32): u32 {
  return window == 0 ? positions : (row % positions) + 1;
}

/** @param tokens of texts that so many `heads` share, 0 where filling is seen as well */
function softmaxRows(scores: usize, positions: u32, rows: u32, window: u32, tokens: usize, heads: u32): void {
  const each = rowsAtOnce(positions);
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const last = min<u32>(begin + each, rows);
    for (let row = begin; row < last; row++) {
      const text: usize = tokens == 0 ? 0 : tokens + (<usize>((row / positions / heads) * positions) << 2);
      const first = firstSeen(row, positions, window);
      softmaxRow(scores + ((<usize>row * positions) << 2), positions, first, endSeen(row, positions, window), text);
    }
  }
}

function softmaxBackwardRows(gradient: usize, weights: usize, positions: u32, rows: u32, window: u32): void {
  const each = rowsAtOnce(positions);
  for (let begin = takeSome(each, rows); begin < rows; begin = takeSome(each, rows)) {
    const last = min<u32>(begin + each, rows);
    for (let row = begin; row < last; row++) {
      const at = (<usize>row * positions) << 2;
      const first = firstSeen(row, positions, window);
      softmaxBackwardRow(gradient + at, weights + at, positions, first, endSeen(row, positions, window));
    }
  }
}

export function causalSoftmax(p: CausalSoftmax): void {
  softmaxRows(p.scores, p.positions, p.positions * p.gridY, p.window, 0, 1);
}

export function wholeSoftmax(p: WholeSoftmax): void {
  softmaxRows(p.scores, p.positions, p.positions * p.gridY, 0, 0, 1);
}

export function paddedSoftmax(p: PaddedSoftmax): void {
  softmaxRows(p.scores, p.positions, p.positions * p.gridY, 0, p.tokens, p.heads);
}

export function causalSoftmaxBackward(p: CausalSoftmaxBackward): void {
  softmaxBackwardRows(p.gradient, p.weights, p.positions, p.positions * p.gridY, p.window);
}

export function softmaxBackward(p: SoftmaxBackward): void {
  softmaxBackwardRows(p.gradient, p.weights, p.positions, p.positions * p.gridY, 0);
}
