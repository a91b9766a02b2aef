import { poolLargest, poolLeast } from "../../program/layout";
import { placeHead } from "./attention";
import { shareStart } from "./elementwise";
import { HeadScores, PoolRows, ReadKeys } from "./generated/records";
import { CodedHead, unpackHead } from "./kvCodes";
import { mulAdd, sumLanes } from "./math";
import { takeWork } from "./sync";

// What patterns that look at queries and keys before attention does are made of.

export function readKeys(a: ReadKeys, thread: i32): void {
  const heads = a.kvHeads;
  const bytes = (<usize>a.keyDim) << 2;
  const total = a.rows * heads;
  const coded = changetype<CodedHead>(a.scratch + <usize>(thread * a.scratchBytes));
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const head = n % heads;
    const slot = a.start + n / heads;
    const target = a.out + ((<usize>((n / heads) * a.outStride)) << 2) + <usize>head * bytes;
    if (a.codeBits == 0) {
      memory.copy(target, a.keys + <usize>(head * a.slots + slot) * bytes, bytes);
      continue;
    }
    placeHead(coded, head, a.slots, a.keys, a.keyScales, a.keyRing, a.keyDim, a.kivi, a.kivi ? 1 : a.keyDim, a.codeBits, a.coded, a.ring);
    unpackHead(coded, slot, 1, target);
  }
}

export function poolRows(a: PoolRows, thread: i32): void {
  const quads = a.cols >> 2;
  const groups = (a.rows + a.every - 1) / a.every;
  const total = groups * quads;
  const rowBytes = (<usize>a.xStride) << 2;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const group = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const count = min(a.every, a.rows - group * a.every);
    let source = a.x + <usize>(group * a.every) * rowBytes + at;
    let pooled = v128.load(source);
    for (let r = 1; r < count; r++) {
      source += rowBytes;
      const v = v128.load(source);
      if (a.pool == poolLeast) pooled = f32x4.min(pooled, v);
      else if (a.pool == poolLargest) pooled = f32x4.max(pooled, v);
      else pooled = f32x4.add(pooled, v);
    }
    if (a.pool != poolLeast && a.pool != poolLargest) pooled = f32x4.div(pooled, f32x4.splat(<f32>count));
    v128.store(a.out + ((<usize>(group * a.outStride)) << 2) + at, pooled);
  }
}

/** Groups of keys that are one work item: they stay in the first-level cache while all heads take them. */
const groupsOfItem = 16;

/** A work item is one row of the result, one key head and some groups of keys. */
export function headScores(a: HeadScores): void {
  const stride = a.stride;
  const outRows = (a.rows + stride - 1) / stride;
  const groups = (a.keys + stride - 1) / stride;
  const runs = (groups + groupsOfItem - 1) / groupsOfItem;
  const shared = a.queryHeads / a.kvHeads;
  for (let item = takeWork(); item < outRows * a.kvHeads * runs; item = takeWork()) {
    const row = item / runs / a.kvHeads;
    const kvHead = (item / runs) % a.kvHeads;
    const first = (item % runs) * groupsOfItem;
    for (let h = kvHead * shared; h < (kvHead + 1) * shared; h++) {
      const out = a.out + ((<usize>(row * a.outStride + h * a.room)) << 2);
      for (let b = first; b < min(groups, first + groupsOfItem); b++) {
        const score = a.scale * antidiagonal(a, row, h, kvHead, b);
        const at = out + ((<usize>b) << 2);
        store<f32>(at, a.accumulate ? load<f32>(at) + score : score);
      }
    }
  }
}

/** Sum of the products of queries and keys of two groups, the last query with the first key. */
// @ts-ignore: decorator
@inline
function antidiagonal(a: HeadScores, row: i32, head: i32, kvHead: i32, group: i32): f32 {
  const bytes = (<usize>a.keyDim) << 2;
  const last = row * a.stride + a.stride - 1;
  const firstKey = group * a.stride;
  // Both groups may be cut off.
  const from = max(0, last - (a.rows - 1));
  const to = min(a.stride, a.keys - firstKey);
  let sum = f32x4.splat(0);
  let other = sum;
  for (let t = from; t < to; t++) {
    const q = a.q + ((<usize>((last - t) * a.qStride)) << 2) + <usize>head * bytes;
    const k = a.k + ((<usize>((firstKey + t) * a.kStride)) << 2) + <usize>kvHead * bytes;
    let i: usize = 0;
    for (; i + 32 <= bytes; i += 32) {
      sum = mulAdd(v128.load(q + i), v128.load(k + i), sum);
      other = mulAdd(v128.load(q + i, 16), v128.load(k + i, 16), other);
    }
    if (i < bytes) sum = mulAdd(v128.load(q + i), v128.load(k + i), sum);
  }
  return sumLanes(f32x4.add(sum, other));
}
