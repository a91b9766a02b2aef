import { constantsTable } from "../../program/layout";
import { dotBytes } from "./columns";
import { bf16High, bf16Low, highHalves, mulAdd } from "./math";
import { shuffled } from "./spread";

// 2:4 matrices of 8- and 4-bit codes. The inputs of a vector of 16 codes are shuffled into place by their positions, so
// that one dot product of bytes multiplies 4 rows with 8 inputs.

/** Sums of four rows: with byte products in `a`, and the sum of the inputs in `b`; else of the first and last two rows. */
// @ts-ignore: decorator
@inline
function wideLow(codes: v128, x: v128, sum: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(codes), i16x8.extend_low_i8x16_s(x)));
}
// @ts-ignore: decorator
@inline
function wideHigh(codes: v128, x: v128, sum: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(codes), i16x8.extend_high_i8x16_s(x)));
}

/** Positions of vector v of a block from the bits of its half. */
// @ts-ignore: decorator
@inline
function positionsOf(half: v128, v: i32, three: v128, lanes: v128): v128 {
  return v128.or(v128.and(v == 0 ? half : i16x8.shr_u(half, v << 1), three), lanes);
}

/** The 16 codes of vector v. */
// @ts-ignore: decorator
@inline
function codesOf(bits: i32, p: usize, v: usize, low: v128): v128 {
  if (bits == 8) return v128.load(p + (v << 4), 32);
  const pair = v128.load(p + ((v & 3) << 4), 32);
  return v128.and(v < 4 ? pair : i16x8.shr_u(pair, 4), low);
}

/** Four rows of four units: i32 sums of codes less that of 0, times inputs. @param other ones, or the code of 0 when not `bytes` */
// @ts-ignore: decorator
@inline
function fourRows(
  bits: i32, bytes: bool, v: usize, p0: usize, p1: usize, p2: usize, p3: usize, h0: v128, h1: v128, h2: v128, h3: v128,
  x0: v128, x1: v128, x2: v128, x3: v128, three: v128, lanes: v128, other: v128,
): v128 {
  const low = bits == 8 ? three : v128.load(constantsTable + 16);
  const y0 = shuffled(x0, positionsOf(h0, <i32>v & 3, three, lanes));
  const y1 = shuffled(x1, positionsOf(h1, <i32>v & 3, three, lanes));
  const y2 = shuffled(x2, positionsOf(h2, <i32>v & 3, three, lanes));
  const y3 = shuffled(x3, positionsOf(h3, <i32>v & 3, three, lanes));
  const c0 = codesOf(bits, p0, v, low);
  const c1 = codesOf(bits, p1, v, low);
  const c2 = codesOf(bits, p2, v, low);
  const c3 = codesOf(bits, p3, v, low);
  if (bytes) {
    const sums = dotBytes(y3, c3, dotBytes(y2, c2, dotBytes(y1, c1, dotBytes(y0, c0, i32x4.splat(0)))));
    // Σ x over the chosen inputs, so that the offset of the codes comes out again.
    const one = other;
    const chosen = dotBytes(y3, one, dotBytes(y2, one, dotBytes(y1, one, dotBytes(y0, one, i32x4.splat(0)))));
    return i32x4.sub(sums, i32x4.shl(chosen, bits == 8 ? 7 : 3));
  }
  const zero = other;
  const d0 = i8x16.sub(c0, zero);
  const d1 = i8x16.sub(c1, zero);
  const d2 = i8x16.sub(c2, zero);
  const d3 = i8x16.sub(c3, zero);
  const near = wideLow(d3, y3, wideLow(d2, y2, wideLow(d1, y1, wideLow(d0, y0, i32x4.splat(0)))));
  const far = wideHigh(d3, y3, wideHigh(d2, y2, wideHigh(d1, y1, wideHigh(d0, y0, i32x4.splat(0)))));
  return i32x4.add(v128.shuffle<i32>(near, far, 0, 2, 4, 6), v128.shuffle<i32>(near, far, 1, 3, 5, 7));
}

/**
 * y[0, 32 · blocks) += W · x · xScale for one group of 32 inputs: four units of 8.
 * @param units u32[4] addresses of their first 32 rows; a unit without kept inputs may be any, its inputs are 0
 * @param x i8[4][16]: the 8 inputs of each unit, then 8 bytes of anything
 * @param scales bf16 of the rows, in the order of `interleaved8`
 */
// @ts-ignore: decorator
@inline
function group(bits: i32, bytes: bool, y: usize, scales: usize, units: usize, x: usize, xScale: f32, blocks: i32): void {
  let p0 = <usize>load<u32>(units);
  let p1 = <usize>load<u32>(units, 4);
  let p2 = <usize>load<u32>(units, 8);
  let p3 = <usize>load<u32>(units, 12);
  const x0 = v128.load(x);
  const x1 = v128.load(x, 16);
  const x2 = v128.load(x, 32);
  const x3 = v128.load(x, 48);
  const factor = f32x4.splat(xScale);
  const three = v128.load(constantsTable + 32);
  const lanes = v128.load(constantsTable + 96);
  // Ones, or the code of 0.
  const other = v128.load(constantsTable + (bytes ? 48 : bits == 8 ? 64 : 80));
  const blockBytes: usize = bits == 8 ? 160 : 96;
  for (let b = 0; b < blocks; b++) {
    for (let half: usize = 0; half < 2; half++) {
      const h0 = v128.load(p0 + (half << 4));
      const h1 = v128.load(p1 + (half << 4));
      const h2 = v128.load(p2 + (half << 4));
      const h3 = v128.load(p3 + (half << 4));
      // Vectors v and v + 4 of 4-bit codes share bytes.
      const q0 = p0 + (bits == 8 ? half << 6 : 0);
      const q1 = p1 + (bits == 8 ? half << 6 : 0);
      const q2 = p2 + (bits == 8 ? half << 6 : 0);
      const q3 = p3 + (bits == 8 ? half << 6 : 0);
      if (bits == 8 || half == 0) {
        add8(y, scales, factor, fourRows(bits, bytes, 0, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other), fourRows(bits, bytes, 1, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other));
        add8(y + 32, scales + 16, factor, fourRows(bits, bytes, 2, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other), fourRows(bits, bytes, 3, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other));
      } else {
        add8(y, scales, factor, fourRows(bits, bytes, 4, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other), fourRows(bits, bytes, 5, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other));
        add8(y + 32, scales + 16, factor, fourRows(bits, bytes, 6, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other), fourRows(bits, bytes, 7, q0, q1, q2, q3, h0, h1, h2, h3, x0, x1, x2, x3, three, lanes, other));
      }
      y += 64;
      scales += 32;
    }
    p0 += blockBytes;
    p1 += blockBytes;
    p2 += blockBytes;
    p3 += blockBytes;
  }
}

/** y[0, 8) += sums · factor · scales. */
// @ts-ignore: decorator
@inline
function add8(y: usize, scales: usize, factor: v128, near: v128, far: v128): void {
  const scale = v128.load(scales);
  v128.store(y, mulAdd(f32x4.mul(f32x4.convert_i32x4_s(near), factor), bf16Low(scale), v128.load(y)));
  v128.store(y, mulAdd(f32x4.mul(f32x4.convert_i32x4_s(far), factor), bf16High(scale, highHalves()), v128.load(y, 16)), 16);
}

export function twoOfFourQ8Wide(y: usize, scales: usize, units: usize, x: usize, xScale: f32, blocks: i32): void {
  group(8, false, y, scales, units, x, xScale, blocks);
}
export function twoOfFourQ8Byte(y: usize, scales: usize, units: usize, x: usize, xScale: f32, blocks: i32): void {
  group(8, true, y, scales, units, x, xScale, blocks);
}
export function twoOfFourQ4Wide(y: usize, scales: usize, units: usize, x: usize, xScale: f32, blocks: i32): void {
  group(4, false, y, scales, units, x, xScale, blocks);
}
export function twoOfFourQ4Byte(y: usize, scales: usize, units: usize, x: usize, xScale: f32, blocks: i32): void {
  group(4, true, y, scales, units, x, xScale, blocks);
}
