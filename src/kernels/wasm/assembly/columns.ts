import { tileRows } from "../../program/layout";
import { codesAt, wideAt } from "./activeInputs";
import { bf16High, bf16Low, highHalves, lowNibble, mulAdd } from "./math";

// The inner loops of matrix-vector products: y[from, to) += Σ x_c · W[:, c] over the kept columns c of one group.
// `y` f32, `from` and `to` in rows, multiples of 32.

// @ts-ignore: decorator
@inline
export function low8(a: v128, b: v128): v128 {
  return v128.shuffle<i8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
// @ts-ignore: decorator
@inline
export function high8(a: v128, b: v128): v128 {
  return v128.shuffle<i8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
// @ts-ignore: decorator
@inline
export function low16(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
// @ts-ignore: decorator
@inline
export function high16(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** sum + a·b over pairs of 16-bit numbers, the first widened from the low or high half of unsigned bytes. */
// @ts-ignore: decorator
@inline
function dotLow(bytes: v128, x: v128, sum: v128): v128 {
  return i32x4.add(i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(bytes), x), sum);
}
// @ts-ignore: decorator
@inline
function dotHigh(bytes: v128, x: v128, sum: v128): v128 {
  return i32x4.add(i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(bytes), x), sum);
}

/** sum + the products of four signed inputs with four unsigned bytes; exact only where the host probed it to be. */
// @ts-ignore: decorator
@inline
export function dotBytes(x: v128, bytes: v128, sum: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, bytes, sum);
  return sum;
}

/** 16 rows of 8 columns added to i32 sums with 16-bit products. */
// @ts-ignore: decorator
@inline
function rows16Wide8(
  sums: usize, x01: v128, x23: v128, x45: v128, x67: v128,
  a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, g: v128, h: v128,
): void {
  let near = low8(a, b);
  let far = high8(a, b);
  let s0 = dotLow(near, x01, v128.load(sums));
  let s1 = dotHigh(near, x01, v128.load(sums, 16));
  let s2 = dotLow(far, x01, v128.load(sums, 32));
  let s3 = dotHigh(far, x01, v128.load(sums, 48));
  near = low8(c, d);
  far = high8(c, d);
  s0 = dotLow(near, x23, s0);
  s1 = dotHigh(near, x23, s1);
  s2 = dotLow(far, x23, s2);
  s3 = dotHigh(far, x23, s3);
  near = low8(e, f);
  far = high8(e, f);
  s0 = dotLow(near, x45, s0);
  s1 = dotHigh(near, x45, s1);
  s2 = dotLow(far, x45, s2);
  s3 = dotHigh(far, x45, s3);
  near = low8(g, h);
  far = high8(g, h);
  v128.store(sums, dotLow(near, x67, s0));
  v128.store(sums, dotHigh(near, x67, s1), 16);
  v128.store(sums, dotLow(far, x67, s2), 32);
  v128.store(sums, dotHigh(far, x67, s3), 48);
}

// @ts-ignore: decorator
@inline
function rows16Wide4(sums: usize, x01: v128, x23: v128, a: v128, b: v128, c: v128, d: v128): void {
  let near = low8(a, b);
  let far = high8(a, b);
  const s0 = dotLow(near, x01, v128.load(sums));
  const s1 = dotHigh(near, x01, v128.load(sums, 16));
  const s2 = dotLow(far, x01, v128.load(sums, 32));
  const s3 = dotHigh(far, x01, v128.load(sums, 48));
  near = low8(c, d);
  far = high8(c, d);
  v128.store(sums, dotLow(near, x23, s0));
  v128.store(sums, dotHigh(near, x23, s1), 16);
  v128.store(sums, dotLow(far, x23, s2), 32);
  v128.store(sums, dotHigh(far, x23, s3), 48);
}

/** 16 rows of 8 columns added to i32 sums with byte products. */
// @ts-ignore: decorator
@inline
function rows16Byte8(
  sums: usize, x0: v128, x1: v128, a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, g: v128, h: v128,
): void {
  let ab = low8(a, b);
  let cd = low8(c, d);
  let ef = low8(e, f);
  let gh = low8(g, h);
  v128.store(sums, dotBytes(x1, low16(ef, gh), dotBytes(x0, low16(ab, cd), v128.load(sums))));
  v128.store(sums, dotBytes(x1, high16(ef, gh), dotBytes(x0, high16(ab, cd), v128.load(sums, 16))), 16);
  ab = high8(a, b);
  cd = high8(c, d);
  ef = high8(e, f);
  gh = high8(g, h);
  v128.store(sums, dotBytes(x1, low16(ef, gh), dotBytes(x0, low16(ab, cd), v128.load(sums, 32))), 32);
  v128.store(sums, dotBytes(x1, high16(ef, gh), dotBytes(x0, high16(ab, cd), v128.load(sums, 48))), 48);
}

// @ts-ignore: decorator
@inline
function rows16Byte4(sums: usize, x0: v128, a: v128, b: v128, c: v128, d: v128): void {
  let ab = low8(a, b);
  let cd = low8(c, d);
  v128.store(sums, dotBytes(x0, low16(ab, cd), v128.load(sums)));
  v128.store(sums, dotBytes(x0, high16(ab, cd), v128.load(sums, 16)), 16);
  ab = high8(a, b);
  cd = high8(c, d);
  v128.store(sums, dotBytes(x0, low16(ab, cd), v128.load(sums, 32)), 32);
  v128.store(sums, dotBytes(x0, high16(ab, cd), v128.load(sums, 48)), 48);
}

// @ts-ignore: decorator
@inline
export function lowNibbles(v: v128, low: v128): v128 {
  return v128.and(v, low);
}
// @ts-ignore: decorator
@inline
export function highNibbles(v: v128, low: v128): v128 {
  return v128.and(i16x8.shr_u(v, 4), low);
}

/**
 * 32 rows of 8 columns of nibbles with byte products. Bytes that hold two rows each are brought beside those of the other
 * columns first and halved then, so that a byte is moved once and not once for either half.
 */
// @ts-ignore: decorator
@inline
function rows32Nibbles8(
  sums: usize, x0: v128, x1: v128, a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, g: v128, h: v128, low: v128,
): void {
  let ab = low8(a, b);
  let cd = low8(c, d);
  let ef = low8(e, f);
  let gh = low8(g, h);
  addNibbles8(sums, x0, x1, low16(ab, cd), low16(ef, gh), low);
  addNibbles8(sums + 16, x0, x1, high16(ab, cd), high16(ef, gh), low);
  ab = high8(a, b);
  cd = high8(c, d);
  ef = high8(e, f);
  gh = high8(g, h);
  addNibbles8(sums + 32, x0, x1, low16(ab, cd), low16(ef, gh), low);
  addNibbles8(sums + 48, x0, x1, high16(ab, cd), high16(ef, gh), low);
}

/** 4 rows of the low nibbles, and the 4 rows 16 further on of the high ones; `near` and `far` hold 4 columns each. */
// @ts-ignore: decorator
@inline
function addNibbles8(sums: usize, x0: v128, x1: v128, near: v128, far: v128, low: v128): void {
  const lows = dotBytes(x0, lowNibbles(near, low), v128.load(sums));
  const highs = dotBytes(x0, highNibbles(near, low), v128.load(sums, 64));
  v128.store(sums, dotBytes(x1, lowNibbles(far, low), lows));
  v128.store(sums, dotBytes(x1, highNibbles(far, low), highs), 64);
}

// @ts-ignore: decorator
@inline
function rows32Nibbles4(sums: usize, x0: v128, a: v128, b: v128, c: v128, d: v128, low: v128): void {
  let ab = low8(a, b);
  let cd = low8(c, d);
  addNibbles4(sums, x0, low16(ab, cd), low);
  addNibbles4(sums + 16, x0, high16(ab, cd), low);
  ab = high8(a, b);
  cd = high8(c, d);
  addNibbles4(sums + 32, x0, low16(ab, cd), low);
  addNibbles4(sums + 48, x0, high16(ab, cd), low);
}

// @ts-ignore: decorator
@inline
function addNibbles4(sums: usize, x0: v128, near: v128, low: v128): void {
  v128.store(sums, dotBytes(x0, lowNibbles(near, low), v128.load(sums)));
  v128.store(sums, dotBytes(x0, highNibbles(near, low), v128.load(sums, 64)), 64);
}

/**
 * One pass over 8 columns of q8 or q4 codes, added to i32 sums [to − from].
 * @param bits 8 or 4, and @param bytes whether products are of bytes: constants at every call, so that each call is a loop of its own
 * @param codes first column of the group; @param pass which pass of the record
 */
// @ts-ignore: decorator
@inline
export function pass8(bits: i32, bytes: bool, sums: usize, codes: usize, record: usize, pass: usize, from: usize, to: usize): void {
  const offsets = record + 32 + (pass << 5);
  const x = record + codesAt + (pass << 3);
  const wide = record + wideAt + (pass << 4);
  const skip = bits == 8 ? from : from >> 1;
  let a = codes + load<u32>(offsets) + skip;
  let b = codes + load<u32>(offsets, 4) + skip;
  let c = codes + load<u32>(offsets, 8) + skip;
  let d = codes + load<u32>(offsets, 12) + skip;
  let e = codes + load<u32>(offsets, 16) + skip;
  let f = codes + load<u32>(offsets, 20) + skip;
  let g = codes + load<u32>(offsets, 24) + skip;
  let h = codes + load<u32>(offsets, 28) + skip;
  const x0 = bytes ? v128.load32_splat(x) : v128.load32_splat(wide);
  const x1 = bytes ? v128.load32_splat(x, 4) : v128.load32_splat(wide, 4);
  const x2 = v128.load32_splat(wide, 8);
  const x3 = v128.load32_splat(wide, 12);
  const low = lowNibble();
  for (let row = from; row < to; row += 32) {
    const va = v128.load(a);
    const vb = v128.load(b);
    const vc = v128.load(c);
    const vd = v128.load(d);
    const ve = v128.load(e);
    const vf = v128.load(f);
    const vg = v128.load(g);
    const vh = v128.load(h);
    if (bits == 8) {
      if (bytes) {
        rows16Byte8(sums, x0, x1, va, vb, vc, vd, ve, vf, vg, vh);
        rows16Byte8(sums + 64, x0, x1, v128.load(a, 16), v128.load(b, 16), v128.load(c, 16), v128.load(d, 16), v128.load(e, 16), v128.load(f, 16), v128.load(g, 16), v128.load(h, 16));
      } else {
        rows16Wide8(sums, x0, x1, x2, x3, va, vb, vc, vd, ve, vf, vg, vh);
        rows16Wide8(sums + 64, x0, x1, x2, x3, v128.load(a, 16), v128.load(b, 16), v128.load(c, 16), v128.load(d, 16), v128.load(e, 16), v128.load(f, 16), v128.load(g, 16), v128.load(h, 16));
      }
    } else {
      if (bytes) {
        rows32Nibbles8(sums, x0, x1, va, vb, vc, vd, ve, vf, vg, vh, low);
      } else {
        rows16Wide8(sums, x0, x1, x2, x3, lowNibbles(va, low), lowNibbles(vb, low), lowNibbles(vc, low), lowNibbles(vd, low), lowNibbles(ve, low), lowNibbles(vf, low), lowNibbles(vg, low), lowNibbles(vh, low));
        rows16Wide8(sums + 64, x0, x1, x2, x3, highNibbles(va, low), highNibbles(vb, low), highNibbles(vc, low), highNibbles(vd, low), highNibbles(ve, low), highNibbles(vf, low), highNibbles(vg, low), highNibbles(vh, low));
      }
    }
    const step: usize = bits == 8 ? 32 : 16;
    a += step;
    b += step;
    c += step;
    d += step;
    e += step;
    f += step;
    g += step;
    h += step;
    sums += 128;
  }
}

// @ts-ignore: decorator
@inline
export function pass4(bits: i32, bytes: bool, sums: usize, codes: usize, record: usize, pass: usize, from: usize, to: usize): void {
  const offsets = record + 32 + (pass << 5);
  const x = record + codesAt + (pass << 3);
  const wide = record + wideAt + (pass << 4);
  const skip = bits == 8 ? from : from >> 1;
  let a = codes + load<u32>(offsets) + skip;
  let b = codes + load<u32>(offsets, 4) + skip;
  let c = codes + load<u32>(offsets, 8) + skip;
  let d = codes + load<u32>(offsets, 12) + skip;
  const x0 = bytes ? v128.load32_splat(x) : v128.load32_splat(wide);
  const x1 = v128.load32_splat(wide, 4);
  const low = lowNibble();
  for (let row = from; row < to; row += 32) {
    const va = v128.load(a);
    const vb = v128.load(b);
    const vc = v128.load(c);
    const vd = v128.load(d);
    if (bits == 8) {
      if (bytes) {
        rows16Byte4(sums, x0, va, vb, vc, vd);
        rows16Byte4(sums + 64, x0, v128.load(a, 16), v128.load(b, 16), v128.load(c, 16), v128.load(d, 16));
      } else {
        rows16Wide4(sums, x0, x1, va, vb, vc, vd);
        rows16Wide4(sums + 64, x0, x1, v128.load(a, 16), v128.load(b, 16), v128.load(c, 16), v128.load(d, 16));
      }
    } else {
      if (bytes) {
        rows32Nibbles4(sums, x0, va, vb, vc, vd, low);
      } else {
        rows16Wide4(sums, x0, x1, lowNibbles(va, low), lowNibbles(vb, low), lowNibbles(vc, low), lowNibbles(vd, low));
        rows16Wide4(sums + 64, x0, x1, highNibbles(va, low), highNibbles(vb, low), highNibbles(vc, low), highNibbles(vd, low));
      }
    }
    const step: usize = bits == 8 ? 32 : 16;
    a += step;
    b += step;
    c += step;
    d += step;
    sums += 128;
  }
}

/** y[from, to) += sums · xScale · scales. */
// @ts-ignore: decorator
@inline
export function scaleAndAdd(y: usize, sums: usize, scales: usize, xScale: v128, from: usize, to: usize): void {
  const high = highHalves();
  y += from << 2;
  scales += from << 1;
  for (let row = from; row < to; row += 8) {
    const scale = v128.load(scales);
    v128.store(y, mulAdd(f32x4.mul(f32x4.convert_i32x4_s(v128.load(sums)), xScale), bf16Low(scale), v128.load(y)));
    v128.store(y, mulAdd(f32x4.mul(f32x4.convert_i32x4_s(v128.load(sums, 16)), xScale), bf16High(scale, high), v128.load(y, 16)), 16);
    y += 32;
    sums += 32;
    scales += 16;
  }
}

/**
 * All passes of one group over rows [from, to), `tileRows` at a time, so that the integer sums of a tile stay in the
 * first-level cache; they are scaled once per group.
 */
// @ts-ignore: decorator
@inline
function group(bits: i32, bytes: bool, y: usize, scales: usize, codes: usize, record: usize, sums: usize, from: usize, to: usize): void {
  const passes = <usize>load<i32>(record);
  const quads = load<i32>(record, 4);
  const xScale = v128.load32_splat(record, 8);
  const start = v128.load32_splat(record, 16);
  for (let first = from; first < to; first += tileRows) {
    const end = min(first + tileRows, to);
    for (let at = sums; at < sums + ((end - first) << 2); at += 16) v128.store(at, start);
    for (let p: usize = 0; p < passes; p++) pass8(bits, bytes, sums, codes, record, p, first, end);
    if (quads != 0) pass4(bits, bytes, sums, codes, record, passes, first, end);
    scaleAndAdd(y, sums, scales, xScale, first, end);
  }
}

export function groupQ8Wide(y: usize, scales: usize, codes: usize, record: usize, sums: usize, from: usize, to: usize): void {
  group(8, false, y, scales, codes, record, sums, from, to);
}
export function groupQ8Byte(y: usize, scales: usize, codes: usize, record: usize, sums: usize, from: usize, to: usize): void {
  group(8, true, y, scales, codes, record, sums, from, to);
}
export function groupQ4Wide(y: usize, scales: usize, codes: usize, record: usize, sums: usize, from: usize, to: usize): void {
  group(4, false, y, scales, codes, record, sums, from, to);
}
export function groupQ4Byte(y: usize, scales: usize, codes: usize, record: usize, sums: usize, from: usize, to: usize): void {
  group(4, true, y, scales, codes, record, sums, from, to);
}

/** The same for f32 and bf16 weights: always passes of 4 columns, so that the sums and the weights fit the registers. */
// @ts-ignore: decorator
@inline
function groupFloat(half: bool, y: usize, columns: usize, record: usize, from: usize, to: usize): void {
  const fours = (load<i32>(record) << 1) + load<i32>(record, 4);
  const shift: usize = half ? 1 : 2;
  const high = highHalves();
  for (let start = from; start < to; start += tileRows) {
    const end = min(start + tileRows, to);
    for (let p: usize = 0; p < <usize>fours; p++) {
      const offsets = record + 32 + (p << 4);
      const x = record + codesAt + (p << 4);
      const x0 = v128.load32_splat(x);
      const x1 = v128.load32_splat(x, 4);
      const x2 = v128.load32_splat(x, 8);
      const x3 = v128.load32_splat(x, 12);
      let a = columns + load<u32>(offsets) + (start << shift);
      let b = columns + load<u32>(offsets, 4) + (start << shift);
      let c = columns + load<u32>(offsets, 8) + (start << shift);
      let d = columns + load<u32>(offsets, 12) + (start << shift);
      let out = y + (start << 2);
      for (let row = start; row < end; row += 16) {
        let s0 = v128.load(out);
        let s1 = v128.load(out, 16);
        let s2 = v128.load(out, 32);
        let s3 = v128.load(out, 48);
        if (half) {
          const a0 = v128.load(a);
          const a1 = v128.load(a, 16);
          s0 = mulAdd(bf16Low(a0), x0, s0);
          s1 = mulAdd(bf16High(a0, high), x0, s1);
          s2 = mulAdd(bf16Low(a1), x0, s2);
          s3 = mulAdd(bf16High(a1, high), x0, s3);
          const b0 = v128.load(b);
          const b1 = v128.load(b, 16);
          s0 = mulAdd(bf16Low(b0), x1, s0);
          s1 = mulAdd(bf16High(b0, high), x1, s1);
          s2 = mulAdd(bf16Low(b1), x1, s2);
          s3 = mulAdd(bf16High(b1, high), x1, s3);
          const c0 = v128.load(c);
          const c1 = v128.load(c, 16);
          s0 = mulAdd(bf16Low(c0), x2, s0);
          s1 = mulAdd(bf16High(c0, high), x2, s1);
          s2 = mulAdd(bf16Low(c1), x2, s2);
          s3 = mulAdd(bf16High(c1, high), x2, s3);
          const d0 = v128.load(d);
          const d1 = v128.load(d, 16);
          s0 = mulAdd(bf16Low(d0), x3, s0);
          s1 = mulAdd(bf16High(d0, high), x3, s1);
          s2 = mulAdd(bf16Low(d1), x3, s2);
          s3 = mulAdd(bf16High(d1, high), x3, s3);
        } else {
          s0 = mulAdd(v128.load(d), x3, mulAdd(v128.load(c), x2, mulAdd(v128.load(b), x1, mulAdd(v128.load(a), x0, s0))));
          s1 = mulAdd(v128.load(d, 16), x3, mulAdd(v128.load(c, 16), x2, mulAdd(v128.load(b, 16), x1, mulAdd(v128.load(a, 16), x0, s1))));
          s2 = mulAdd(v128.load(d, 32), x3, mulAdd(v128.load(c, 32), x2, mulAdd(v128.load(b, 32), x1, mulAdd(v128.load(a, 32), x0, s2))));
          s3 = mulAdd(v128.load(d, 48), x3, mulAdd(v128.load(c, 48), x2, mulAdd(v128.load(b, 48), x1, mulAdd(v128.load(a, 48), x0, s3))));
        }
        v128.store(out, s0);
        v128.store(out, s1, 16);
        v128.store(out, s2, 32);
        v128.store(out, s3, 48);
        const step: usize = half ? 32 : 64;
        a += step;
        b += step;
        c += step;
        d += step;
        out += 64;
      }
    }
  }
}

export function groupBf16(y: usize, columns: usize, record: usize, from: usize, to: usize): void {
  groupFloat(true, y, columns, record, from, to);
}
export function groupF32(y: usize, columns: usize, record: usize, from: usize, to: usize): void {
  groupFloat(false, y, columns, record, from, to);
}
