import { takeWork } from "../sync";

/** What every record begins with; the parameters of its kernel, and then the addresses of its buffers, follow in their order. */
// @ts-ignore: decorator
@unmanaged
export class Step {
  /** Which of the kernels that share a form. */
  variant: u32;
  /** Of all threads, `stepScratchBytes` each, where the form asks for some. */
  scratch: usize;
  /** Workgroups that a GPU has for it. */
  gridX: u32;
  gridY: u32;
  gridZ: u32;
}

/** f32 that a thread takes at once. */
const share: u32 = 8192;

/** Rows of `width` f32 that a thread takes at once. */
// @ts-ignore: decorator
@inline
export function rowsAtOnce(width: u32): u32 {
  return max<u32>(1, share / max<u32>(1, width));
}

/** The first of the next `each` of `count`, or `count` when none are left. */
// @ts-ignore: decorator
@inline
export function takeSome(each: u32, count: u32): u32 {
  const item = <u32>takeWork();
  return item >= (count + each - 1) / each ? count : item * each;
}

/** The next of `count`, or `count` when none is left. */
// @ts-ignore: decorator
@inline
export function takeOne(count: u32): u32 {
  return min<u32>(<u32>takeWork(), count);
}

/** Lanes j … j + 3 that lie in [first, end), as a mask. */
// @ts-ignore: decorator
@inline
export function lanesWithin(j: i32, first: i32, end: i32): v128 {
  const lanes = i32x4.add(i32x4.splat(j), i32x4(0, 1, 2, 3));
  return v128.and(i32x4.ge_s(lanes, i32x4.splat(first)), i32x4.lt_s(lanes, i32x4.splat(end)));
}

/** Below every score. */
export const nothing: f32 = -3.0e38;

// @ts-ignore: decorator
@inline
export function largestLane(v: v128): f32 {
  const pairs = f32x4.max(v, v128.shuffle<i32>(v, v, 2, 3, 0, 1));
  return max<f32>(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

/** Natural logarithm of a positive number that is not denormal: x = m · 2ᵉ with m in [√½, √2), and 2·artanh((m − 1) / (m + 1)). */
export function logOf(x: f32): f32 {
  let bits = reinterpret<i32>(x);
  const e = (bits - 0x3f3504f3) >> 23;
  bits -= e << 23;
  const m = <f64>reinterpret<f32>(bits);
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let sum: f64 = 1.0 / 13;
  sum = sum * z + 1.0 / 11;
  sum = sum * z + 1.0 / 9;
  sum = sum * z + 1.0 / 7;
  sum = sum * z + 1.0 / 5;
  sum = sum * z + 1.0 / 3;
  sum = sum * z + 1.0;
  return <f32>(2 * s * sum + <f64>e * 0.6931471805599453);
}
