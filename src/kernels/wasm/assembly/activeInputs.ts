/**
 * The inputs of one group of 32 that a matrix-vector product keeps, arranged for the kernels in passes over 8 columns
 * each and possibly one over 4:
 *
 *   0  i32 passes of 8        4  i32 passes of 4 (0 or 1)    8  f32 scale of the 8-bit inputs
 *  16  i32 start value of the integer sums: −zero · Σ inputs, which takes the offset of the weights' codes out
 *  32  u32[32] byte offset of each column from the first of the group
 * 160  i8[32] inputs        192  i16[32] the same, widened   (8- and 4-bit weights)
 * 160  f32[32] inputs                                          (f32 and bf16 weights)
 *
 * The columns of one pass are taken far apart, and those of the next pass follow on them: a hardware prefetcher keeps
 * one forward stream per page, and two columns in one page disturb each other (7 against 12 GB/s measured).
 */

const offsetsAt: usize = 32;
export const codesAt: usize = 160;
export const wideAt: usize = 192;

// Scratch: the indices of the kept inputs u8[32], the inputs of an incomplete group f32[32], and all codes i16[32].
const inputsAt: usize = 32;
const allCodesAt: usize = 160;

/** The group's 32 inputs; an incomplete group is copied and filled with zeros. */
// @ts-ignore: decorator
@inline
function completed(x: usize, valid: i32, scratch: usize): usize {
  if (valid == 32) return x;
  memory.fill(scratch + inputsAt, 0, 128);
  memory.copy(scratch + inputsAt, x, (<usize>valid) << 2);
  return scratch + inputsAt;
}

/** Whether an input is multiplied: |x| > threshold, or NaN, which must show in the result. A negative threshold keeps all. */
// @ts-ignore: decorator
@inline
export function keeps(value: f32, threshold: f32): bool {
  return !(abs(value) <= threshold);
}

/** Indices of the inputs that are kept; returns how many. */
// @ts-ignore: decorator
@inline
function select(x: usize, valid: i32, threshold: f32, kept: usize): i32 {
  let count = 0;
  for (let i = 0; i < valid; i++) {
    store<u8>(kept + count, <u8>i);
    count += i32(keeps(load<f32>(x + ((<usize>i) << 2)), threshold));
  }
  return count;
}

/**
 * Gives every kept input its slot. Passes of 8 take every m-th input, where m is their number; up to four left over make
 * the pass of 4. Slots without an input read the first kept column and multiply it by 0.
 * @param quantised whether inputs are the codes at scratch + allCodesAt, or f32 at x
 */
// @ts-ignore: decorator
@inline
function arrange(record: usize, x: usize, count: i32, columnBytes: usize, scratch: usize, quantised: bool, columns: usize): void {
  const rest = count & 7;
  const quads = i32(rest > 0 && rest <= 4);
  const passes = (count >> 3) + i32(rest > 4);
  store<i32>(record, passes);
  store<i32>(record, quads, 4);
  let slot = record;
  for (let p = 0; p < passes; p++) {
    for (let n = p; n < passes << 3; n += passes) slot = place(record, slot, n, x, count, columnBytes, scratch, quantised, columns);
  }
  for (let n = passes << 3; n < (passes << 3) + (quads << 2); n++) {
    slot = place(record, slot, n, x, count, columnBytes, scratch, quantised, columns);
  }
}

/** Fills the slot at `slot` (record + 4 · its number) with the n-th kept input; returns the next. */
// @ts-ignore: decorator
@inline
function place(record: usize, slot: usize, n: i32, x: usize, count: i32, columnBytes: usize, scratch: usize, quantised: bool, columns: usize): usize {
  const present = n < count;
  const i = <usize>load<u8>(scratch + (present ? <usize>n : 0));
  store<u32>(slot, columns != 0 ? load<u32>(columns + (i << 2)) : <u32>(i * columnBytes), offsetsAt);
  if (quantised) {
    const index = (slot - record) >> 2;
    const code = present ? <i32>load<i16>(scratch + allCodesAt + (i << 1)) : 0;
    store<i8>(record + codesAt + index, <i8>code);
    store<i16>(record + wideAt + (index << 1), <i16>code);
  } else store<f32>(slot, present ? load<f32>(x + (i << 2)) : 0, codesAt);
  return slot + 4;
}

/**
 * For f32 and bf16 weights. Returns the number of inputs kept.
 * @param columns u32[valid], where the column of each input lies; 0 where they follow one another
 */
export function listFloat(
  record: usize, x: usize, valid: i32, threshold: f32, columnBytes: usize, scratch: usize, columns: usize = 0,
): i32 {
  const count = select(x, valid, threshold, scratch);
  if (count > 0) arrange(record, x, count, columnBytes, scratch, false, columns);
  return count;
}

/** For q8 and q4 weights: inputs as 8-bit integers with one scale, max|x| / 127 of those kept, nearest even. */
export function listQuantized(
  record: usize, x: usize, valid: i32, threshold: f32, columnBytes: usize, zero: i32, scratch: usize, columns: usize = 0,
): i32 {
  const count = select(x, valid, threshold, scratch);
  if (count == 0) return 0;
  const inputs = completed(x, valid, scratch);
  const meta = record + 8;
  quantizeFull(inputs, threshold, scratch + allCodesAt, true, meta);
  store<i32>(record, -zero * load<i32>(meta, 4), 16);
  arrange(record, x, count, columnBytes, scratch, true, columns);
  return count;
}

/**
 * Quantises 32 inputs (`valid` of them; the rest 0) of one row as `listQuantized` does, for matrix-matrix products.
 * @param codes i16[32] when `wide`, else i8[32]
 * @param meta where f32 scale and i32 Σ codes go
 * @param scratch as of `listQuantized`
 */
export function quantizeGroup(x: usize, valid: i32, threshold: f32, codes: usize, wide: bool, meta: usize, scratch: usize): void {
  quantizeFull(completed(x, valid, scratch), threshold, codes, wide, meta);
}

// @ts-ignore: decorator
@inline
function largestLane(v: v128): f32 {
  return max(max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)), max(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)));
}

/** 32 inputs, those with |x| ≤ threshold as 0. */
// @ts-ignore: decorator
@inline
function quantizeFull(x: usize, threshold: f32, codes: usize, wide: bool, meta: usize): void {
  const limit = f32x4.splat(threshold);
  let largest = f32x4.splat(0);
  for (let i: usize = 0; i < 128; i += 16) largest = f32x4.max(largest, f32x4.abs(v128.load(x + i)));
  // The largest decides the scale if it is kept, and if it is not, nothing is.
  const top = largestLane(largest);
  // NaN makes the scale NaN, and with it the sums of the whole group.
  const any = keeps(top, threshold) && top != 0;
  const inverse = f32x4.splat(any ? 127 / top : 0);
  store<f32>(meta, any ? top / 127 : 0);
  let sums = i32x4.splat(0);
  for (let i: usize = 0; i < 8; i += 2) {
    const a = v128.load(x + (i << 4));
    const b = v128.load(x + (i << 4), 16);
    const codeA = code4(a, inverse, limit);
    const codeB = code4(b, inverse, limit);
    sums = i32x4.add(sums, i32x4.add(codeA, codeB));
    const both = i16x8.narrow_i32x4_s(codeA, codeB);
    if (wide) v128.store(codes + (i << 3), both);
    else v128.store64_lane(codes + (i << 2), i8x16.narrow_i16x8_s(both, both), 0);
  }
  const sum = i32x4.extract_lane(sums, 0) + i32x4.extract_lane(sums, 1) + i32x4.extract_lane(sums, 2) + i32x4.extract_lane(sums, 3);
  store<i32>(meta, sum, 4);
}

// @ts-ignore: decorator
@inline
function code4(x: v128, inverse: v128, limit: v128): v128 {
  const kept = f32x4.gt(f32x4.abs(x), limit);
  return v128.and(i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(x, inverse))), kept);
}

// LLM.int8(): inputs of magnitude `int8Outlier` and more are left to floating point, the others share one scale for a whole
// row of x.

const int8Outlier: f32 = 6;

/** Whether an input is rounded to 8 bits. */
// @ts-ignore: decorator
@inline
export function isInt8(value: f32, threshold: f32): bool {
  return keeps(value, threshold) && abs(value) < int8Outlier;
}

/** Whether an input is multiplied in floating point. */
// @ts-ignore: decorator
@inline
export function isOutlier(value: f32, threshold: f32): bool {
  return keeps(value, threshold) && !(abs(value) < int8Outlier);
}

/** The largest magnitude of a row of x that is rounded to 8 bits. */
export function largestInt8(x: usize, cols: i32, threshold: f32): f32 {
  let top: f32 = 0;
  for (let i = 0; i < cols; i++) {
    const value = load<f32>(x + ((<usize>i) << 2));
    if (isInt8(value, threshold)) top = max(top, abs(value));
  }
  return top;
}

/** As `listQuantized`, with the scale of the whole row and without outliers. @param top `largestInt8` */
export function listInt8(record: usize, x: usize, valid: i32, threshold: f32, top: f32, columnBytes: usize, zero: i32, scratch: usize): i32 {
  let count = 0;
  let sum = 0;
  for (let i = 0; i < valid; i++) {
    const value = load<f32>(x + ((<usize>i) << 2));
    const kept = isInt8(value, threshold);
    const code = kept ? int8Code(value, top) : 0;
    store<u8>(scratch + count, <u8>i);
    store<i16>(scratch + allCodesAt + ((<usize>i) << 1), <i16>code);
    sum += code;
    count += i32(kept);
  }
  store<f32>(record, top / 127, 8);
  store<i32>(record, -zero * sum, 16);
  if (count > 0) arrange(record, x, count, columnBytes, scratch, true, 0);
  return count;
}

/** As `quantizeGroup`, likewise. */
export function quantizeInt8(x: usize, valid: i32, threshold: f32, top: f32, codes: usize, wide: bool, meta: usize): void {
  let sum = 0;
  for (let i = 0; i < 32; i++) {
    const value: f32 = i < valid ? load<f32>(x + ((<usize>i) << 2)) : 0;
    const code = isInt8(value, threshold) ? int8Code(value, top) : 0;
    if (wide) store<i16>(codes + ((<usize>i) << 1), <i16>code);
    else store<i8>(codes + <usize>i, <i8>code);
    sum += code;
  }
  store<f32>(meta, top / 127);
  store<i32>(meta, sum, 4);
}

// @ts-ignore: decorator
@inline
function int8Code(value: f32, top: f32): i32 {
  return <i32>nearest(value * (top > 0 ? 127 / top : 0));
}
