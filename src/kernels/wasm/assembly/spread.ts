import { constantsTable, gatherTable, spreadTable } from "../../program/layout";
import { dotBytes, high16, low16, low8 } from "./columns";
import { bf16High, bf16Low, highHalves, lowNibble, mulAdd } from "./math";

// Lookup tables turn masks and positions into shuffles: see layout.ts. Every 8 rows cost one shuffle, whatever the mask.

/** Bytes of `v` at `indices`, 0 where an index is above 127. */
// @ts-ignore: decorator
@inline
export function shuffled(v: v128, indices: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(v, indices);
  return i8x16.swizzle(v, indices);
}

/** Where the entry of a mask of 8 rows lies, from `spreadTable`: that is added by the loads, which costs nothing. */
// @ts-ignore: decorator
@inline
function entryOf(mask: u32): usize {
  return <usize>mask << 5;
}

/**
 * y[0, 32 · blocks) += Σ x · W over `count` inputs of a bitmask of 16-bit codes.
 * @param slots per input: u32 where its mask of the first 32 rows lies, f32 x. The addresses move on.
 */
export function addBitmaskHalf(y: usize, slots: usize, count: i32, blocks: i32): void {
  const high = highHalves();
  const end = slots + (<usize>count << 3);
  for (let b = 0; b < blocks; b++) {
    let s0 = v128.load(y);
    let s1 = v128.load(y, 16);
    let s2 = v128.load(y, 32);
    let s3 = v128.load(y, 48);
    let s4 = v128.load(y, 64);
    let s5 = v128.load(y, 80);
    let s6 = v128.load(y, 96);
    let s7 = v128.load(y, 112);
    for (let slot = slots; slot < end; slot += 8) {
      let p = <usize>load<u32>(slot);
      const x = v128.load32_splat(slot, 4);
      let entry = entryOf(load<u8>(p));
      const entry1 = entryOf(load<u8>(p, 1));
      const entry2 = entryOf(load<u8>(p, 2));
      const entry3 = entryOf(load<u8>(p, 3));
      let v = shuffled(v128.load(p, 4), v128.load(entry, spreadTable));
      p += <usize>load<u8>(entry, spreadTable + 25);
      s0 = mulAdd(bf16Low(v), x, s0);
      s1 = mulAdd(bf16High(v, high), x, s1);
      v = shuffled(v128.load(p, 4), v128.load(entry1, spreadTable));
      p += <usize>load<u8>(entry1, spreadTable + 25);
      s2 = mulAdd(bf16Low(v), x, s2);
      s3 = mulAdd(bf16High(v, high), x, s3);
      v = shuffled(v128.load(p, 4), v128.load(entry2, spreadTable));
      p += <usize>load<u8>(entry2, spreadTable + 25);
      s4 = mulAdd(bf16Low(v), x, s4);
      s5 = mulAdd(bf16High(v, high), x, s5);
      v = shuffled(v128.load(p, 4), v128.load(entry3, spreadTable));
      p += <usize>load<u8>(entry3, spreadTable + 25);
      s6 = mulAdd(bf16Low(v), x, s6);
      s7 = mulAdd(bf16High(v, high), x, s7);
      store<u32>(slot, <u32>(p + 4));
    }
    v128.store(y, s0);
    v128.store(y, s1, 16);
    v128.store(y, s2, 32);
    v128.store(y, s3, 48);
    v128.store(y, s4, 64);
    v128.store(y, s5, 80);
    v128.store(y, s6, 96);
    v128.store(y, s7, 112);
    y += 128;
  }
}

/** The 8 bytes of a mask of 8 rows, absent ones as 0, in the low half. */
// @ts-ignore: decorator
@inline
function spreadBytes(p: usize, entry: usize): v128 {
  return shuffled(v128.load64_zero(p, 4), v128.load64_zero(entry, spreadTable + 16));
}

/** 8 rows of four inputs added to i32 sums. @param x i8[4] repeated, or i16[2] of the first two, and @param x2 of the others */
// @ts-ignore: decorator
@inline
function addQuad(bytes: bool, sums: usize, x: v128, x2: v128, flip: v128, a: v128, b: v128, c: v128, d: v128): void {
  const ab = low8(a, b);
  const cd = low8(c, d);
  if (bytes) {
    v128.store(sums, dotBytes(x, v128.xor(low16(ab, cd), flip), v128.load(sums)));
    v128.store(sums, dotBytes(x, v128.xor(high16(ab, cd), flip), v128.load(sums, 16)), 16);
    return;
  }
  const near = i32x4.add(i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(ab), x), i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(cd), x2));
  const far = i32x4.add(i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(ab), x), i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(cd), x2));
  v128.store(sums, i32x4.add(v128.load(sums), near));
  v128.store(sums, i32x4.add(v128.load(sums, 16), far), 16);
}

/**
 * Four inputs of a bitmask of 8-bit codes, added to i32 sums [32 · blocks].
 * @param cursors u32[4], where their masks of the first 32 rows lie; they move on
 * @param x i8[4] with byte products, which take the codes as unsigned, or i16[4]
 */
// @ts-ignore: decorator
@inline
function bitmaskQ8(bytes: bool, sums: usize, cursors: usize, x: usize, blocks: i32): void {
  const flip = v128.load(constantsTable + 64);
  const x0 = v128.load32_splat(x);
  const x1 = bytes ? x0 : v128.load32_splat(x, 4);
  let a = <usize>load<u32>(cursors);
  let b = <usize>load<u32>(cursors, 4);
  let c = <usize>load<u32>(cursors, 8);
  let d = <usize>load<u32>(cursors, 12);
  const end = sums + (<usize>blocks << 7);
  for (; sums < end; sums += 128) {
    const ma = load<u32>(a);
    const mb = load<u32>(b);
    const mc = load<u32>(c);
    const md = load<u32>(d);
    let ea = entryOf(ma & 255);
    let eb = entryOf(mb & 255);
    let ec = entryOf(mc & 255);
    let ed = entryOf(md & 255);
    addQuad(bytes, sums, x0, x1, flip, spreadBytes(a, ea), spreadBytes(b, eb), spreadBytes(c, ec), spreadBytes(d, ed));
    a += <usize>load<u8>(ea, spreadTable + 24);
    b += <usize>load<u8>(eb, spreadTable + 24);
    c += <usize>load<u8>(ec, spreadTable + 24);
    d += <usize>load<u8>(ed, spreadTable + 24);
    ea = entryOf((ma >> 8) & 255);
    eb = entryOf((mb >> 8) & 255);
    ec = entryOf((mc >> 8) & 255);
    ed = entryOf((md >> 8) & 255);
    addQuad(bytes, sums + 32, x0, x1, flip, spreadBytes(a, ea), spreadBytes(b, eb), spreadBytes(c, ec), spreadBytes(d, ed));
    a += <usize>load<u8>(ea, spreadTable + 24);
    b += <usize>load<u8>(eb, spreadTable + 24);
    c += <usize>load<u8>(ec, spreadTable + 24);
    d += <usize>load<u8>(ed, spreadTable + 24);
    ea = entryOf((ma >> 16) & 255);
    eb = entryOf((mb >> 16) & 255);
    ec = entryOf((mc >> 16) & 255);
    ed = entryOf((md >> 16) & 255);
    addQuad(bytes, sums + 64, x0, x1, flip, spreadBytes(a, ea), spreadBytes(b, eb), spreadBytes(c, ec), spreadBytes(d, ed));
    a += <usize>load<u8>(ea, spreadTable + 24);
    b += <usize>load<u8>(eb, spreadTable + 24);
    c += <usize>load<u8>(ec, spreadTable + 24);
    d += <usize>load<u8>(ed, spreadTable + 24);
    ea = entryOf(ma >> 24);
    eb = entryOf(mb >> 24);
    ec = entryOf(mc >> 24);
    ed = entryOf(md >> 24);
    addQuad(bytes, sums + 96, x0, x1, flip, spreadBytes(a, ea), spreadBytes(b, eb), spreadBytes(c, ec), spreadBytes(d, ed));
    a += <usize>load<u8>(ea, spreadTable + 24) + 4;
    b += <usize>load<u8>(eb, spreadTable + 24) + 4;
    c += <usize>load<u8>(ec, spreadTable + 24) + 4;
    d += <usize>load<u8>(ed, spreadTable + 24) + 4;
  }
  store<u32>(cursors, <u32>a);
  store<u32>(cursors, <u32>b, 4);
  store<u32>(cursors, <u32>c, 8);
  store<u32>(cursors, <u32>d, 12);
}

export function addBitmaskQ8Wide(sums: usize, cursors: usize, x: usize, blocks: i32): void {
  bitmaskQ8(false, sums, cursors, x, blocks);
}
export function addBitmaskQ8Byte(sums: usize, cursors: usize, x: usize, blocks: i32): void {
  bitmaskQ8(true, sums, cursors, x, blocks);
}

/** Unpacks 32-row blocks of one input of a bitmask of 8-bit codes, absent ones as 128; returns where the next block lies. */
export function spreadQ8(p: usize, blocks: i32, target: usize): usize {
  const flip = v128.load(constantsTable + 64);
  for (let b = 0; b < blocks; b++) {
    let at = p;
    for (let k: usize = 0; k < 4; k++) {
      const entry = entryOf(load<u8>(p + k));
      v128.store64_lane(target + (k << 3), v128.xor(spreadBytes(at, entry), flip), 0);
      at += <usize>load<u8>(entry, spreadTable + 24);
    }
    p = at + 4;
    target += 32;
  }
  return p;
}

/** The same for 4-bit codes, as bytes, absent ones as 8. @param nibbles scratch of 32 bytes and more */
export function spreadQ4(p: usize, blocks: i32, target: usize, nibbles: usize): usize {
  const zero = v128.load(constantsTable + 80);
  const low = lowNibble();
  for (let b = 0; b < blocks; b++) {
    const packed = v128.load(p, 4);
    const even = v128.and(packed, low);
    const odd = v128.and(i16x8.shr_u(packed, 4), low);
    v128.store(nibbles, v128.shuffle<i8>(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    v128.store(nibbles, v128.shuffle<i8>(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 16);
    let n = nibbles;
    for (let k: usize = 0; k < 4; k++) {
      const entry = entryOf(load<u8>(p + k));
      // 0 stands for the code of 0 while they are spread.
      const codes = shuffled(v128.xor(v128.load64_zero(n), zero), v128.load64_zero(entry, spreadTable + 16));
      v128.store64_lane(target + (k << 3), v128.xor(codes, zero), 0);
      n += <usize>load<u8>(entry, spreadTable + 24);
    }
    p += 4 + ((n - nibbles + 1) >> 1);
    target += 32;
  }
  return p;
}

/** Unpacks 32-row blocks of one input of a bitmask of 16-bit codes in the order of `interleaved8`. */
export function spreadHalf(p: usize, blocks: i32, target: usize): usize {
  for (let b = 0; b < blocks; b++) {
    let at = p + 4;
    for (let k: usize = 0; k < 4; k++) {
      const entry = entryOf(load<u8>(p + k));
      v128.store(target + (k << 4), shuffled(v128.load(at), v128.load(entry, spreadTable)));
      at += <usize>load<u8>(entry, spreadTable + 25);
    }
    p = at;
    target += 64;
  }
  return p;
}

/** Skips 32-row blocks of one input. @param bits of a code */
export function skipBlocks(p: usize, blocks: i32, bits: i32): usize {
  for (let b = 0; b < blocks; b++) {
    const count = <usize>popcnt<u32>(load<u32>(p));
    p += 4 + ((count * <usize>bits + 7) >> 3);
  }
  return p;
}

/** The inputs that four 2-bit positions choose of four f32 numbers. */
// @ts-ignore: decorator
@inline
function gathered(x: v128, positions: u32): v128 {
  return shuffled(x, v128.load(<usize>positions << 4, gatherTable));
}

/** y[0, 32 · blocks) += W · x for `count` fours of inputs of a 2:4 matrix. @param slots per four: u32 address, 12 bytes, f32[4] x */
export function addTwoOfFourHalf(y: usize, slots: usize, count: i32, blocks: i32): void {
  const high = highHalves();
  const end = slots + (<usize>count << 5);
  for (let b = 0; b < blocks; b++) {
    let s0 = v128.load(y);
    let s1 = v128.load(y, 16);
    let s2 = v128.load(y, 32);
    let s3 = v128.load(y, 48);
    let s4 = v128.load(y, 64);
    let s5 = v128.load(y, 80);
    let s6 = v128.load(y, 96);
    let s7 = v128.load(y, 112);
    for (let slot = slots; slot < end; slot += 32) {
      const p = <usize>load<u32>(slot);
      const x = v128.load(slot, 16);
      let v = v128.load(p, 16);
      s0 = mulAdd(bf16Low(v), gathered(x, load<u8>(p)), s0);
      s1 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 1)), s1);
      v = v128.load(p, 32);
      s2 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 2)), s2);
      s3 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 3)), s3);
      v = v128.load(p, 48);
      s4 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 4)), s4);
      s5 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 5)), s5);
      v = v128.load(p, 64);
      s6 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 6)), s6);
      s7 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 7)), s7);
      v = v128.load(p, 80);
      s0 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 8)), s0);
      s1 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 9)), s1);
      v = v128.load(p, 96);
      s2 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 10)), s2);
      s3 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 11)), s3);
      v = v128.load(p, 112);
      s4 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 12)), s4);
      s5 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 13)), s5);
      v = v128.load(p, 128);
      s6 = mulAdd(bf16Low(v), gathered(x, load<u8>(p, 14)), s6);
      s7 = mulAdd(bf16High(v, high), gathered(x, load<u8>(p, 15)), s7);
      store<u32>(slot, <u32>(p + 144));
    }
    v128.store(y, s0);
    v128.store(y, s1, 16);
    v128.store(y, s2, 32);
    v128.store(y, s3, 48);
    v128.store(y, s4, 64);
    v128.store(y, s5, 80);
    v128.store(y, s6, 96);
    v128.store(y, s7, 112);
    y += 128;
  }
}
