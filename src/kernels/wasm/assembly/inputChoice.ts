import { shareStart } from "./elementwise";
import { KeepLargest } from "./generated/records";

// The largest of a run are those whose magnitude is above that of the last one kept, and some that are equal to it. Magnitudes
// order like their bits without the sign, so that 31 looks at the run find the bits of the last one, the highest first.

export function keepLargest(a: KeepLargest, thread: i32): void {
  const runs = (a.cols + a.run - 1) / a.run;
  const total = a.rows * runs;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const first = (n % runs) * a.run;
    const length = min(a.run, a.cols - first);
    const x = a.x + ((<usize>((n / runs) * a.xStride + first)) << 2);
    const out = a.out + ((<usize>((n / runs) * a.outStride + first)) << 2);
    if (a.mass < 0) keepCount(out, x, length, min(a.count, length));
    else keepMass(out, x, length, a.mass);
  }
}

function keepCount(out: usize, x: usize, length: i32, count: i32): void {
  let bits = 0;
  for (let bit = 1 << 30; bit > 0; bit >>= 1) {
    if (countAbove(x, length, (bits | bit) - 1) >= count) bits |= bit;
  }
  keep(out, x, length, bits, count - countAbove(x, length, bits));
}

function keepMass(out: usize, x: usize, length: i32, share: f32): void {
  const wanted = <f64>share * sumAbove(x, length, -1);
  let bits = 0;
  for (let bit = 1 << 30; bit > 0; bit >>= 1) {
    if (sumAbove(x, length, (bits | bit) - 1) >= wanted) bits |= bit;
  }
  const ties = ceil((wanted - sumAbove(x, length, bits)) / <f64>reinterpret<f32>(bits));
  // Of zeros none is needed. What is no number leaves everything.
  keep(out, x, length, bits, bits == 0 ? 0 : ties >= 1 ? <i32>min<f64>(ties, <f64>length) : 1);
}

/** Copies what is above `bits` and the first `ties` that are equal to it. */
function keep(out: usize, x: usize, length: i32, bits: i32, ties: i32): void {
  for (let i: usize = 0; i < (<usize>length) << 2; i += 4) {
    const magnitude = load<i32>(x + i) & 0x7fffffff;
    let kept = magnitude > bits;
    if (magnitude == bits && ties > 0) {
      kept = true;
      ties--;
    }
    store<f32>(out + i, kept ? load<f32>(x + i) : 0);
  }
}

function countAbove(x: usize, length: i32, bits: i32): i32 {
  const limit = i32x4.splat(bits);
  const unsigned = i32x4.splat(0x7fffffff);
  const end = x + ((<usize>length) << 2);
  let counts = i32x4.splat(0);
  for (; x + 16 <= end; x += 16) counts = i32x4.sub(counts, i32x4.gt_s(v128.and(v128.load(x), unsigned), limit));
  let count =
    i32x4.extract_lane(counts, 0) + i32x4.extract_lane(counts, 1) + i32x4.extract_lane(counts, 2) + i32x4.extract_lane(counts, 3);
  for (; x < end; x += 4) count += i32((load<i32>(x) & 0x7fffffff) > bits);
  return count;
}

function sumAbove(x: usize, length: i32, bits: i32): f64 {
  const limit = i32x4.splat(bits);
  const unsigned = i32x4.splat(0x7fffffff);
  const end = x + ((<usize>length) << 2);
  let sums = f64x2.splat(0);
  let others = sums;
  for (; x + 16 <= end; x += 16) {
    const magnitudes = v128.and(v128.load(x), unsigned);
    const counted = v128.and(magnitudes, i32x4.gt_s(magnitudes, limit));
    sums = f64x2.add(sums, f64x2.promote_low_f32x4(counted));
    others = f64x2.add(others, f64x2.promote_low_f32x4(v128.shuffle<i64>(counted, counted, 1, 1)));
  }
  sums = f64x2.add(sums, others);
  let sum = f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
  for (; x < end; x += 4) {
    const magnitude = load<i32>(x) & 0x7fffffff;
    if (magnitude > bits) sum += <f64>reinterpret<f32>(magnitude);
  }
  return sum;
}
