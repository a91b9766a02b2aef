import { kiviGroup } from "../../program/layout";
import { shareStart } from "./elementwise";
import { CodeKv } from "./generated/records";
import { mulAdd } from "./math";

/** Makes codes: x ≈ z + s · code by the groups of kernels/kvCodes.ts. */
export function codeKv(a: CodeKv, thread: i32): void {
  const tokens = a.byChannel ? kiviGroup : 1;
  const groups = a.rows / tokens;
  const items = a.kvHeads * groups;
  for (let n = shareStart(items, thread); n < shareStart(items, thread + 1); n++) {
    codeGroup(a, n / groups, a.start + (n % groups) * tokens, tokens);
  }
}

function codeGroup(a: CodeKv, head: i32, slot: i32, tokens: i32): void {
  const width = a.width;
  const bits = a.bits;
  const levels = <f32>((1 << bits) - 1);
  const perRow = a.byChannel ? width : (width + a.channels - 1) / a.channels;
  const perGroup = a.byChannel ? 1 : a.channels;
  const groups = a.byChannel ? (a.slots + kiviGroup - 1) / kiviGroup : a.slots;
  const scales = a.scales + ((<usize>((head * groups + slot / tokens) * perRow)) << 2);
  for (let g = 0; g < perRow; g++) {
    let least: f32 = f32.MAX_VALUE;
    let largest: f32 = -f32.MAX_VALUE;
    for (let t = 0; t < tokens; t++) {
      const row = rowOf(a, head, slot + t);
      for (let c = g * perGroup; c < min(width, (g + 1) * perGroup); c++) {
        const x = load<f32>(row + ((<usize>c) << 2));
        least = min(least, x);
        largest = max(largest, x);
      }
    }
    const z = halfBits(least);
    store<u32>(scales + ((<usize>g) << 2), halfBits((largest - half(z)) / levels) | (z << 16));
  }
  const rowBytes = (<usize>((width * bits + 31) >> 5)) << 2;
  for (let t = 0; t < tokens; t++) {
    const row = rowOf(a, head, slot + t);
    const codes = a.codes + <usize>(head * a.slots + slot + t) * rowBytes;
    let word: u32 = 0;
    let filled = 0;
    let at = codes;
    for (let c = 0; c < width; c++) {
      const scale = load<u32>(scales + ((<usize>(c / perGroup)) << 2));
      const s = half(scale & 0xffff);
      const steps = s == 0 ? <f32>0 : nearest((load<f32>(row + ((<usize>c) << 2)) - half(scale >> 16)) / s);
      // Saturates, so that NaN becomes 0 (its group's z is NaN too).
      word |= (<u32>i32x4.extract_lane(i32x4.trunc_sat_f32x4_s(f32x4.splat(min(levels, max<f32>(0, steps)))), 0)) << <u32>filled;
      filled += bits;
      if (filled == 32 || c == width - 1) {
        store<u32>(at, word);
        at += 4;
        word = 0;
        filled = 0;
      }
    }
    if (a.mass != 0) store<f32>(a.mass + ((<usize>(head * a.slots + slot + t)) << 2), 0);
  }
}

// @ts-ignore: decorator
@inline
function rowOf(a: CodeKv, head: i32, slot: i32): usize {
  const row = a.ring > 0 ? slot % a.ring : slot - a.start;
  return a.source + ((<usize>(row * a.rowStride + head * a.headStride)) << 2);
}

/** Where the keys, or the values, of one head lie. */
// @ts-ignore: decorator
@unmanaged
export class CodedHead {
  codes: usize;
  scales: usize;
  ring: usize;
  ringSlots: i32;
  /** Slots before it are codes. */
  coded: i32;
  bits: i32;
  width: i32;
  /** Whether a group is one channel of 32 slots; else it is `channels` channels of one. */
  byChannel: i32;
  channels: i32;
}

/** Writes n rows from `slot` on as f32 [n][width] to `target`. */
export function unpackHead(h: CodedHead, slot: i32, n: i32, target: usize): void {
  const bytes = (<usize>h.width) << 2;
  const codes = max(0, min(n, h.coded - slot));
  if (h.byChannel) {
    for (let k = 0; k < codes; ) {
      const rows = min(codes - k, kiviGroup - ((slot + k) % kiviGroup));
      unpackByChannel(h, slot + k, rows, target + <usize>k * bytes);
      k += rows;
    }
  } else {
    for (let k = 0; k < codes; k++) unpackRow(h, slot + k, target + <usize>k * bytes);
  }
  for (let k = codes; k < n; k++) {
    memory.copy(target + <usize>k * bytes, h.ring + <usize>((slot + k) % h.ringSlots) * bytes, bytes);
  }
}

/** Four codes lie in four lanes where they are in their word: the scale of a lane makes up for that. */
// @ts-ignore: decorator
@inline
function laneFactors(bits: i32): v128 {
  const step = <f32>1 / <f32>(1 << bits);
  return f32x4(1, step, step * step, step * step * step);
}

// @ts-ignore: decorator
@inline
function laneMasks(bits: i32): v128 {
  const m = (1 << bits) - 1;
  return i32x4(m, m << bits, m << (2 * bits), m << (3 * bits));
}

function unpackRow(h: CodedHead, slot: i32, target: usize): void {
  const bits = h.bits;
  const width = h.width;
  const rowBytes = (<usize>((width * bits + 31) >> 5)) << 2;
  const perRow = (width + h.channels - 1) / h.channels;
  const codes = h.codes + <usize>slot * rowBytes;
  const scales = h.scales + ((<usize>(slot * perRow)) << 2);
  const factors = laneFactors(bits);
  const masks = laneMasks(bits);
  for (let g = 0; g < perRow; g++) {
    const scale = load<u32>(scales + ((<usize>g) << 2));
    const s = f32x4.mul(f32x4.splat(half(scale & 0xffff)), factors);
    const z = f32x4.splat(half(scale >> 16));
    const end = min(width, (g + 1) * h.channels);
    let c = g * h.channels;
    if (bits >= 4) {
      const own = f32x4.splat(half(scale & 0xffff));
      // A row of bytes begins where one of words does, and so does every 16th code in it.
      for (; c + 16 <= end && (c & 15) == 0; c += 16) {
        storeSixteen(sixteenCodes(codes + <usize>((c * bits) >> 3), bits), own, z, target + ((<usize>c) << 2));
      }
    }
    for (; c < end; c += 4) {
      const bit = c * bits;
      const word = v128.load32_splat(codes + ((<usize>(bit >> 5)) << 2));
      v128.store(target + ((<usize>c) << 2), mulAdd(floatsOf(v128.and(i32x4.shr_u(word, bit & 31), masks), bits), s, z));
    }
  }
}

/** Sixteen codes of 8 or 4 bits as bytes. */
// @ts-ignore: decorator
@inline
function sixteenCodes(at: usize, bits: i32): v128 {
  if (bits == 8) return v128.load(at);
  const pairs = v128.load64_zero(at);
  const low = v128.and(pairs, i8x16.splat(15));
  const high = v128.and(i16x8.shr_u(pairs, 4), i8x16.splat(15));
  return i8x16.shuffle(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

// @ts-ignore: decorator
@inline
function storeSixteen(codes: v128, s: v128, z: v128, target: usize): void {
  const low = i16x8.extend_low_i8x16_u(codes);
  const high = i16x8.extend_high_i8x16_u(codes);
  v128.store(target, mulAdd(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_u(low)), s, z));
  v128.store(target, mulAdd(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_u(low)), s, z), 16);
  v128.store(target, mulAdd(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_u(high)), s, z), 32);
  v128.store(target, mulAdd(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_u(high)), s, z), 48);
}

/** Codes in lanes, where they are in their word: only those of 8 bits reach the sign, and converting without it costs much more. */
// @ts-ignore: decorator
@inline
function floatsOf(codes: v128, bits: i32): v128 {
  return bits < 8 ? f32x4.convert_i32x4_s(codes) : f32x4.convert_i32x4_u(codes);
}

/** Rows of one group of 32. */
function unpackByChannel(h: CodedHead, slot: i32, n: i32, target: usize): void {
  const bits = h.bits;
  const width = h.width;
  const rowBytes = (<usize>((width * bits + 31) >> 5)) << 2;
  const scales = h.scales + ((<usize>(slot / kiviGroup * width)) << 2);
  const factors = laneFactors(bits);
  const masks = laneMasks(bits);
  for (let c = 0; c < width; c += 4) {
    const four = v128.load(scales + ((<usize>c) << 2));
    const s = f32x4.mul(half4(v128.and(four, i32x4.splat(0xffff))), factors);
    const z = half4(i32x4.shr_u(four, 16));
    const bit = c * bits;
    let code = h.codes + <usize>slot * rowBytes + ((<usize>(bit >> 5)) << 2);
    let to = target + ((<usize>c) << 2);
    for (let k = 0; k < n; k++) {
      const codes = v128.and(i32x4.shr_u(v128.load32_splat(code), bit & 31), masks);
      v128.store(to, mulAdd(floatsOf(codes, bits), s, z));
      code += rowBytes;
      to += (<usize>width) << 2;
    }
  }
}

/** 2^112 and 2^-112: what lies between the exponents of f16 and f32. */
const raise = reinterpret<f32>(0x77800000);
const lower = reinterpret<f32>(0x07800000);

/** f16 bits → f32; what is not finite is NaN. */
function half(bits: u32): f32 {
  if ((bits & 0x7c00) == 0x7c00) return f32.NaN;
  const size = reinterpret<f32>((bits & 0x7fff) << 13) * raise;
  return reinterpret<f32>(reinterpret<u32>(size) | ((bits & 0x8000) << 16));
}

/** Likewise of four lanes. */
// @ts-ignore: decorator
@inline
function half4(bits: v128): v128 {
  const size = v128.and(bits, i32x4.splat(0x7fff));
  const finite = f32x4.mul(i32x4.shl(size, 13), f32x4.splat(raise));
  const nan = v128.and(i32x4.gt_u(size, i32x4.splat(0x7bff)), i32x4.splat(0x7fc00000));
  return v128.or(v128.or(finite, nan), i32x4.shl(v128.and(bits, i32x4.splat(0x8000)), 16));
}

/** f32 → f16 bits, rounded to nearest even, the largest finite one for what is beyond; NaN of what is not finite. */
function halfBits(x: f32): u32 {
  if (!isFinite(x)) return 0x7e00;
  const size = reinterpret<u32>(min(abs(x), <f32>65504) * lower);
  return ((reinterpret<u32>(x) >> 16) & 0x8000) | ((size + 0xfff + ((size >> 13) & 1)) >> 13);
}
