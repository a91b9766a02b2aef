
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

/** Indices of the inputs of a group with |x| > threshold; returns how many. A negative threshold keeps all. */
// @ts-ignore: decorator
@inline
function select(x: usize, valid: i32, threshold: f32, kept: usize): i32 {
  let count = 0;
  for (let i = 0; i < valid; i++) {
    store<u8>(kept + count, <u8>i);
    count += i32(abs(load<f32>(x + ((<usize>i) << 2))) > threshold);
  }
  return count;
}

/** Where in the record the n-th kept input goes. Passes of 8 take every m-th input; what is left goes into the pass of 4. */
// @ts-ignore: decorator
@inline
function slotOf(n: i32, passes: i32): i32 {
  if (n >= passes * 8) return n;
  return (n % passes) * 8 + n / passes;
}

// @ts-ignore: decorator
@inline
function arrange(record: usize, count: i32): i32 {
  const rest = count & 7;
  const quads = i32(rest > 0 && rest <= 4);
  const passes = (count >> 3) + i32(rest > 4);
  store<i32>(record, passes);
  store<i32>(record, quads, 4);
  return passes;
}

/** For f32 and bf16 weights. `kept`: 32 bytes of scratch. Returns the number of inputs kept. */
export function listFloat(record: usize, x: usize, valid: i32, threshold: f32, columnBytes: usize, kept: usize): i32 {
  const count = select(x, valid, threshold, kept);
  if (count == 0) return 0;
  const passes = arrange(record, count);
  // Slots without an input read the first column and multiply it by 0.
  const first = load<u8>(kept) * columnBytes;
  for (let slot: usize = 0; slot < 32; slot++) {
    store<u32>(record + offsetsAt + (slot << 2), <u32>first);
    store<f32>(record + codesAt + (slot << 2), 0);
  }
  for (let n = 0; n < count; n++) {
    const i = <usize>load<u8>(kept + n);
    const slot = (<usize>slotOf(n, passes)) << 2;
    store<u32>(record + offsetsAt + slot, <u32>(i * columnBytes));
    store<f32>(record + codesAt + slot, load<f32>(x + (i << 2)));
  }
  return count;
}

/** For q8 and q4 weights: inputs as 8-bit integers with one scale, max|x| / 127 of those kept, nearest even. */
export function listQuantized(
  record: usize, x: usize, valid: i32, threshold: f32, columnBytes: usize, zero: i32, kept: usize,
): i32 {
  const count = select(x, valid, threshold, kept);
  if (count == 0) return 0;
  let largest: f32 = 0;
  for (let n = 0; n < count; n++) largest = max(largest, abs(load<f32>(x + ((<usize>load<u8>(kept + n)) << 2))));
  const passes = arrange(record, count);
  const scale = largest / 127;
  const inverse: f32 = largest > 0 ? 127 / largest : 0;
  store<f32>(record, scale, 8);
  const first = load<u8>(kept) * columnBytes;
  for (let slot: usize = 0; slot < 32; slot++) store<u32>(record + offsetsAt + (slot << 2), <u32>first);
  memory.fill(record + codesAt, 0, 96);
  let sum = 0;
  for (let n = 0; n < count; n++) {
    const i = <usize>load<u8>(kept + n);
    const slot = slotOf(n, passes);
    const code = <i32>nearest(load<f32>(x + (i << 2)) * inverse);
    store<u32>(record + offsetsAt + ((<usize>slot) << 2), <u32>(i * columnBytes));
    store<i8>(record + codesAt + slot, <i8>code);
    store<i16>(record + wideAt + ((<usize>slot) << 1), <i16>code);
    sum += code;
  }
  store<i32>(record, -zero * sum, 16);
  return count;
}

/**
 * Quantises 32 inputs (`valid` of them; the rest 0) of one row as `listQuantized` does, for matrix-matrix products.
 * @param codes i16[32] when `wide`, else i8[32]
 * @param meta where f32 scale and i32 Σ codes go
 */
export function quantizeGroup(x: usize, valid: i32, threshold: f32, codes: usize, wide: bool, meta: usize): void {
  let largest = f32x4.splat(0);
  let i = 0;
  let tail: f32 = 0;
  for (; i + 4 <= valid; i += 4) largest = f32x4.max(largest, f32x4.abs(v128.load(x + ((<usize>i) << 2))));
  for (; i < valid; i++) tail = max(tail, abs(load<f32>(x + ((<usize>i) << 2))));
  tail = max(tail, max(max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)), max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3))));
  // The largest decides the scale only if it is kept, and if it is not, nothing is.
  const any = tail > threshold && tail > 0;
  const inverse: f32 = any ? 127 / tail : 0;
  store<f32>(meta, any ? tail / 127 : 0);
  let sum = 0;
  for (let k = 0; k < 32; k++) {
    let code = 0;
    if (k < valid) {
      const value = load<f32>(x + ((<usize>k) << 2));
      if (abs(value) > threshold) code = <i32>nearest(value * inverse);
    }
    sum += code;
    if (wide) store<i16>(codes + ((<usize>k) << 1), <i16>code);
    else store<i8>(codes + k, <i8>code);
  }
  store<i32>(meta, sum, 4);
}

