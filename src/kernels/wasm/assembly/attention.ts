import { attentionBlockKeys, attentionScoreBytes, codedHeadsBytes, kiviGroup, nativeAttention, rowsOfGroup, slotsOfBlock } from "../../program/layout";
import { Attention } from "./generated/records";
import { CodedHead, unpackHead } from "./kvCodes";
import { exp4, mulAdd, softcap4 } from "./math";
import { ranNative, takeWork } from "./sync";

/** Keys whose scores are held at once. */
const blockKeys = attentionBlockKeys;
const masked: f32 = -3e38;
/** As in kernels/sight.ts. */
export const fullBlock: u32 = 0xffffffff;

/**
 * Grouped-query attention with online softmax (Milakov and Gimelshein, 1805.02867; tiles as in FlashAttention,
 * 2205.14135). A work item is four queries that share a key head: four heads of one row, or rows of one head. Scores of the
 * four lie in the lanes of one vector, so that maxima, exponentials and sums are lane by lane. The four lie in the same 16
 * rows, so that one list of key blocks holds for them.
 */
export function attention(a: Attention, thread: i32): void {
  if (ranNative(nativeAttention, changetype<usize>(a))) return;
  const rows = a.rows;
  const kvHeads = a.kvHeads;
  const shared = a.queryHeads / kvHeads;
  const queries = rows * shared;
  const blocks = (queries + 3) >> 2;
  const scratch = a.scratch + <usize>(thread * a.scratchBytes);
  for (let item = takeWork(); item < kvHeads * blocks; item = takeWork()) {
    // Late rows see more keys: the longest work goes first.
    const first = (blocks - 1 - item / kvHeads) << 2;
    attendFour(a, item % kvHeads, first, min(4, queries - first), shared, scratch);
  }
}

function attendFour(a: Attention, head: i32, first: i32, count: i32, shared: i32, scratch: usize): void {
  const start = a.start;
  const window = a.window;
  const bytes = (<usize>a.keyDim) << 2;
  const valueBytes = (<usize>a.valueDim) << 2;
  const valueStride = (<usize>a.valueStride) << 2;
  const queries = scratch + attentionScoreBytes;
  const sums = queries + (bytes << 2);
  const scale = a.scale;
  for (let n = 0; n < 4; n++) {
    // A block of fewer than four repeats its first query.
    const source = queryAt(a.q, a.qStride, head, first + (n < count ? n : 0), shared, bytes);
    const target = queries + <usize>n * bytes;
    for (let i: usize = 0; i < bytes; i += 16) v128.store(target + i, f32x4.mul(v128.load(source + i), f32x4.splat(scale)));
  }
  memory.fill(sums, 0, valueBytes << 2);
  const keys = a.keys + <usize>(head * a.slots) * bytes;
  const values = a.values + <usize>(head * a.slots) * valueStride;
  // Of codes, f32 keys and values of a block are made here.
  const coded = a.codeBits > 0;
  const codedKeys = changetype<CodedHead>(sums + (valueBytes << 2));
  const codedValues = changetype<CodedHead>(sums + (valueBytes << 2) + (codedHeadsBytes >> 1));
  const keyRoom = sums + (valueBytes << 2) + codedHeadsBytes;
  // Values that lie in keys are where those were made.
  const inKey = a.values == a.keys;
  const valueRoom = inKey ? keyRoom : keyRoom + bytes * attentionBlockKeys;
  if (coded) {
    placeHead(codedKeys, head, a.slots, a.keys, a.keyScales, a.keyRing, a.keyDim, a.kivi, a.kivi ? 1 : a.keyDim, a.codeBits, a.coded, a.ring);
    if (!inKey) placeHead(codedValues, head, a.slots, a.values, a.valueScales, a.valueRing, a.valueDim, 0, a.kivi ? kiviGroup : a.valueDim, a.codeBits, a.coded, a.ring);
  }

  let largest = f32x4.splat(masked);
  let total = f32x4.splat(0);
  if (a.sinks != 0) {
    // The sink is a first key whose value is 0.
    largest = sinksOf(a.sinks, head, first, count, shared);
    total = f32x4.splat(1);
  }
  if (a.tableOfHead == 0) {
    const firstPosition = start + first / shared;
    let positions = i32x4(
      firstPosition,
      start + (first + (count > 1 ? 1 : 0)) / shared,
      start + (first + (count > 2 ? 2 : 0)) / shared,
      start + (first + (count > 3 ? 3 : 0)) / shared,
    );
    let lastPosition = start + (first + count - 1) / shared;
    if (!a.causal) {
      lastPosition = start + a.rows - 1;
      positions = i32x4.splat(lastPosition);
    }
    const oldest = window > 0 ? i32x4.sub(positions, i32x4.splat(window)) : i32x4.splat(-1);
    const from = window > 0 ? max(0, firstPosition - window + 1) : 0;
    for (let block = from; block <= lastPosition; block += blockKeys) {
      const n = min(blockKeys, lastPosition + 1 - block);
      if (coded) unpackHead(codedKeys, block, n, keyRoom);
      const keyBlock = coded ? keyRoom : keys + <usize>block * bytes;
      const newLargest = f32x4.max(largest, scoreBlock(scratch, queries, keyBlock, bytes, block, n, positions, oldest, a.softcap));
      const shrink = exp4(f32x4.sub(largest, newLargest));
      largest = newLargest;
      total = f32x4.mul(total, shrink);
      total = weighBlock(scratch, n, largest, total);
      if (coded && !inKey) unpackHead(codedValues, block, n, valueRoom);
      addValues(scratch, sums, coded ? valueRoom : values + <usize>block * valueStride, valueStride, valueBytes, n, shrink);
    }
  } else {
    const list = a.lists + ((<usize>(first / shared / rowsOfGroup)) << 2);
    const end = a.blocks + ((<usize>load<u32>(list, 4)) << 3);
    for (let entry = a.blocks + ((<usize>load<u32>(list)) << 3); entry < end; entry += 8) {
      const seen = wordsOf(a, load<u32>(entry, 4), head, first, count, shared);
      // What none of the four sees is not read.
      if (!v128.any_true(seen)) continue;
      const block = load<i32>(entry) * slotsOfBlock;
      const n = min(slotsOfBlock, a.used - block);
      if (coded) unpackHead(codedKeys, block, n, keyRoom);
      const highest = scoreBlock(scratch, queries, coded ? keyRoom : keys + <usize>block * bytes, bytes, 0, n, i32x4.splat(slotsOfBlock), i32x4.splat(-1), a.softcap);
      // Most blocks are seen whole by all four.
      const newLargest = f32x4.max(largest, i32x4.all_true(i32x4.eq(seen, i32x4.splat(-1))) ? highest : maskBlock(scratch, n, seen));
      const shrink = exp4(f32x4.sub(largest, newLargest));
      largest = newLargest;
      total = f32x4.mul(total, shrink);
      total = weighBlock(scratch, n, largest, total);
      if (coded && !inKey) unpackHead(codedValues, block, n, valueRoom);
      addValues(scratch, sums, coded ? valueRoom : values + <usize>block * valueStride, valueStride, valueBytes, n, shrink);
    }
  }
  // Who sees nothing gets nothing.
  const share = v128.and(f32x4.div(f32x4.splat(1), total), f32x4.ne(total, f32x4.splat(0)));
  v128.store(scratch, share);
  v128.store(scratch + 16, largest);
  v128.store(scratch + 32, total);
  for (let n = 0; n < count; n++) {
    const target = queryAt(a.out, a.outStride, head, first + n, shared, valueBytes);
    const factor = v128.load32_splat(scratch + ((<usize>n) << 2));
    const source = sums + <usize>n * valueBytes;
    for (let i: usize = 0; i < valueBytes; i += 16) v128.store(target + i, f32x4.mul(v128.load(source + i), factor));
    if (a.states == 0) continue;
    const query = (first + n) / shared * a.queryHeads + head * shared + (first + n) % shared;
    const state = a.states + ((<usize>query) << 3);
    store<f32>(state, load<f32>(scratch + 16 + ((<usize>n) << 2)));
    store<f32>(state, load<f32>(scratch + 32 + ((<usize>n) << 2)), 4);
  }
}

/** Of four queries the sinks of their heads. */
function sinksOf(sinks: usize, head: i32, first: i32, count: i32, shared: i32): v128 {
  const at = sinks + ((<usize>(head * shared)) << 2);
  let four = v128.load32_splat(at + ((<usize>(first % shared)) << 2));
  if (count > 1) four = f32x4.replace_lane(four, 1, load<f32>(at + ((<usize>((first + 1) % shared)) << 2)));
  if (count > 2) four = f32x4.replace_lane(four, 2, load<f32>(at + ((<usize>((first + 2) % shared)) << 2)));
  if (count > 3) four = f32x4.replace_lane(four, 3, load<f32>(at + ((<usize>((first + 3) % shared)) << 2)));
  return four;
}

/** Says where the keys, or the values, of a head lie; of a group, one channel of 32 slots or some of one slot. */
export function placeHead(
  place: CodedHead, head: i32, slots: i32, codes: usize, scales: usize, ring: usize, width: i32, byChannel: i32, channels: i32, bits: i32, coded: i32, ringSlots: i32,
): void {
  const groups = byChannel ? (slots + kiviGroup - 1) / kiviGroup : slots;
  const perRow = (width + channels - 1) / channels;
  place.codes = codes + ((<usize>(head * slots * ((width * bits + 31) >> 5))) << 2);
  place.scales = scales + ((<usize>(head * groups * perRow)) << 2);
  place.ring = ring + ((<usize>(head * ringSlots * width)) << 2);
  place.ringSlots = ringSlots;
  place.coded = coded;
  place.bits = bits;
  place.width = width;
  place.byChannel = byChannel;
  place.channels = channels;
}

/** Of four queries the words of a mask; queries beyond the first `count` see nothing. */
function wordsOf(a: Attention, mask: u32, head: i32, first: i32, count: i32, shared: i32): v128 {
  if (mask == fullBlock) return i32x4.splat(-1);
  const w0 = wordOf(a, mask, head, first, shared);
  const w1 = count > 1 ? wordOf(a, mask, head, first + 1, shared) : 0;
  const w2 = count > 2 ? wordOf(a, mask, head, first + 2, shared) : 0;
  const w3 = count > 3 ? wordOf(a, mask, head, first + 3, shared) : 0;
  return i32x4(w0, w1, w2, w3);
}

// @ts-ignore: decorator
@inline
function wordOf(a: Attention, mask: u32, head: i32, n: i32, shared: i32): i32 {
  const table = load<u32>(a.tableOfHead + ((<usize>(head * shared + n % shared)) << 2));
  return load<i32>(a.bits + ((<usize>((mask * <u32>a.tables + table) * <u32>rowsOfGroup + <u32>((n / shared) % rowsOfGroup))) << 2));
}

/** Hides scores of n keys from the queries that have no bit for them; returns the largest of each query. */
function maskBlock(scores: usize, n: i32, seen: v128): v128 {
  let largest = f32x4.splat(masked);
  for (let k = 0; k < n; k++) {
    const at = scores + ((<usize>k) << 4);
    const hidden = i32x4.eq(v128.and(seen, i32x4.splat(1 << k)), i32x4.splat(0));
    const kept = v128.bitselect(f32x4.splat(masked), v128.load(at), hidden);
    v128.store(at, kept);
    largest = f32x4.max(largest, kept);
  }
  return largest;
}

/** Makes weights of the scores of n keys; returns the totals with them added. */
// @ts-ignore: decorator
@inline
function weighBlock(scores: usize, n: i32, largest: v128, totals: v128): v128 {
  let total = totals;
  for (let k = 0; k < n; k++) {
    const at = scores + ((<usize>k) << 4);
    const score = v128.load(at);
    // Hidden keys weigh nothing; a score that is NaN is not hidden, so that it shows.
    const weight = v128.andnot(exp4(f32x4.sub(score, largest)), f32x4.le(score, f32x4.splat(-1e38)));
    total = f32x4.add(total, weight);
    v128.store(at, weight);
  }
  return total;
}

/** Query n of a key head: row n / shared, query head head · shared + n % shared. */
// @ts-ignore: decorator
@inline
function queryAt(base: usize, stride: i32, head: i32, n: i32, shared: i32, bytes: usize): usize {
  return base + ((<usize>((n / shared) * stride)) << 2) + <usize>(head * shared + (n % shared)) * bytes;
}

/** Lane n of the result: Σ of the lanes of argument n. */
// @ts-ignore: decorator
@inline
export function sumEach(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<i32>(ab, cd, 0, 1, 4, 5), v128.shuffle<i32>(ab, cd, 2, 3, 6, 7));
}

/** Scores of n keys, hidden ones `masked`; returns the largest of each query. Keys are taken in pairs. */
function scoreBlock(
  scores: usize, queries: usize, keys: usize, bytes: usize, block: i32, n: i32, positions: v128, oldest: v128, cap: f32,
): v128 {
  let largest = f32x4.splat(masked);
  const q1 = queries + bytes;
  const q2 = q1 + bytes;
  const q3 = q2 + bytes;
  for (let k = 0; k < n; k += 2) {
    const key = keys + <usize>k * bytes;
    const other = k + 1 < n ? key + bytes : key;
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let a2 = a0;
    let a3 = a0;
    let b0 = a0;
    let b1 = a0;
    let b2 = a0;
    let b3 = a0;
    for (let i: usize = 0; i < bytes; i += 16) {
      const u = v128.load(key + i);
      const v = v128.load(other + i);
      let q = v128.load(queries + i);
      a0 = mulAdd(u, q, a0);
      b0 = mulAdd(v, q, b0);
      q = v128.load(q1 + i);
      a1 = mulAdd(u, q, a1);
      b1 = mulAdd(v, q, b1);
      q = v128.load(q2 + i);
      a2 = mulAdd(u, q, a2);
      b2 = mulAdd(v, q, b2);
      q = v128.load(q3 + i);
      a3 = mulAdd(u, q, a3);
      b3 = mulAdd(v, q, b3);
    }
    largest = f32x4.max(largest, storeScore(scores + ((<usize>k) << 4), sumEach(a0, a1, a2, a3), block + k, positions, oldest, cap));
    if (k + 1 < n) {
      largest = f32x4.max(largest, storeScore(scores + ((<usize>k) << 4) + 16, sumEach(b0, b1, b2, b3), block + k + 1, positions, oldest, cap));
    }
  }
  return largest;
}

// @ts-ignore: decorator
@inline
function storeScore(at: usize, product: v128, position: i32, positions: v128, oldest: v128, cap: f32): v128 {
  const score = cap > 0 ? softcap4(product, cap) : product;
  const p = i32x4.splat(position);
  const visible = v128.and(i32x4.le_s(p, positions), i32x4.gt_s(p, oldest));
  const kept = v128.bitselect(score, f32x4.splat(masked), visible);
  v128.store(at, kept);
  return kept;
}

/** sums[q] = sums[q] · shrink[q] + Σ_k weights[k][q] · values[k], 8 columns at a time (4 at the end). */
function addValues(weights: usize, sums: usize, values: usize, stride: usize, bytes: usize, n: i32, shrink: v128): void {
  const f0 = f32x4.splat(f32x4.extract_lane(shrink, 0));
  const f1 = f32x4.splat(f32x4.extract_lane(shrink, 1));
  const f2 = f32x4.splat(f32x4.extract_lane(shrink, 2));
  const f3 = f32x4.splat(f32x4.extract_lane(shrink, 3));
  const s1 = sums + bytes;
  const s2 = s1 + bytes;
  const s3 = s2 + bytes;
  for (let i: usize = 0; i < bytes; i += 32) {
    const wide = i + 32 <= bytes;
    const j = wide ? i + 16 : i;
    let a0 = f32x4.mul(v128.load(sums + i), f0);
    let a1 = f32x4.mul(v128.load(s1 + i), f1);
    let a2 = f32x4.mul(v128.load(s2 + i), f2);
    let a3 = f32x4.mul(v128.load(s3 + i), f3);
    let b0 = f32x4.mul(v128.load(sums + j), f0);
    let b1 = f32x4.mul(v128.load(s1 + j), f1);
    let b2 = f32x4.mul(v128.load(s2 + j), f2);
    let b3 = f32x4.mul(v128.load(s3 + j), f3);
    let value = values + i;
    let other = values + j;
    let w = weights;
    for (let k = 0; k < n; k++) {
      const u = v128.load(value);
      const v = v128.load(other);
      let p = v128.load32_splat(w);
      a0 = mulAdd(p, u, a0);
      b0 = mulAdd(p, v, b0);
      p = v128.load32_splat(w, 4);
      a1 = mulAdd(p, u, a1);
      b1 = mulAdd(p, v, b1);
      p = v128.load32_splat(w, 8);
      a2 = mulAdd(p, u, a2);
      b2 = mulAdd(p, v, b2);
      p = v128.load32_splat(w, 12);
      a3 = mulAdd(p, u, a3);
      b3 = mulAdd(p, v, b3);
      value += stride;
      other += stride;
      w += 16;
    }
    // At an odd end both halves are the same columns with the same sums.
    v128.store(sums + i, a0);
    v128.store(s1 + i, a1);
    v128.store(s2 + i, a2);
    v128.store(s3 + i, a3);
    v128.store(sums + j, b0);
    v128.store(s1 + j, b1);
    v128.store(s2 + j, b2);
    v128.store(s3 + j, b3);
  }
}
