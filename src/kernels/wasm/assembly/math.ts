import { constantsTable, functionClamp, functionGelu, functionGeluTanh, functionRelu, functionRelu2, functionScale, functionSoftcap } from "../../program/layout";

/** a · b + c: fused where the build has it. */
// @ts-ignore: decorator
@inline
export function mulAdd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Rows k … k+3 of a block of 8 interleaved bf16 numbers, as f32. */
// @ts-ignore: decorator
@inline
export function bf16Low(v: v128): v128 {
  return i32x4.shl(v, 16);
}

/** Rows k+4 … k+7. @param high `highHalves()` */
// @ts-ignore: decorator
@inline
export function bf16High(v: v128, high: v128): v128 {
  return v128.and(v, high);
}

// V8 makes vector constants anew wherever they are used, three instructions each time; what is loaded stays in a register.
// So inner loops take their constants from memory, once.

/** The upper halves of 32-bit words. */
// @ts-ignore: decorator
@inline
export function highHalves(): v128 {
  return v128.load(constantsTable);
}

/** The lower halves of bytes. */
// @ts-ignore: decorator
@inline
export function lowNibble(): v128 {
  return v128.load(constantsTable + 16);
}

// @ts-ignore: decorator
@inline
export function sumLanes(v: v128): f32 {
  const pairs = f32x4.add(v, v128.shuffle<i32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1);
}

/**
 * eˣ for four lanes, relative error below 2e-7 on [-87, 88]; smaller x give 0, larger ones saturate, NaN stays.
 * x = n·ln2 + r with |r| ≤ ln2/2, a polynomial of degree 6 for eʳ, and 2ⁿ by its exponent bits.
 */
export function exp4(x: v128): v128 {
  const clamped = f32x4.min(f32x4.max(x, f32x4.splat(-87.33654)), f32x4.splat(88.37626));
  const n = f32x4.nearest(f32x4.mul(clamped, f32x4.splat(1.44269504)));
  let r = f32x4.sub(clamped, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.add(f32x4.mul(f32x4.mul(p, r), r), r), f32x4.splat(1));
  const scale = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  const value = f32x4.mul(p, scale);
  return v128.andnot(value, f32x4.lt(x, f32x4.splat(-87.33654)));
}

// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

/** x·Φ(x) with Abramowitz and Stegun 7.1.26 for the error function: absolute error below 2e-7·|x|. */
function gelu4(x: v128): v128 {
  const z = f32x4.mul(f32x4.abs(x), f32x4.splat(0.70710678));
  const t = f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), f32x4.mul(z, f32x4.splat(0.3275911))));
  let p = f32x4.splat(1.061405429);
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-1.453152027));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(1.421413741));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-0.284496736));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(0.254829592));
  const tail = f32x4.mul(f32x4.mul(p, t), exp4(f32x4.neg(f32x4.mul(z, z)))); // 1 − erf(|z|)
  const half = f32x4.mul(f32x4.splat(0.5), tail);
  const phi = v128.bitselect(half, f32x4.sub(f32x4.splat(1), half), f32x4.lt(x, f32x4.splat(0)));
  return f32x4.mul(x, phi);
}

/** The functions of `functionSilu` … of the layout, on four lanes. */
export function activation4(id: i32, x: v128): v128 {
  if (id == functionRelu) return f32x4.max(x, f32x4.splat(0));
  if (id == functionRelu2) {
    const positive = f32x4.max(x, f32x4.splat(0));
    return f32x4.mul(positive, positive);
  }
  if (id == functionGelu) return gelu4(x);
  if (id == functionGeluTanh) {
    // ½(1 + tanh u) = sigmoid(2u)
    const cube = f32x4.mul(f32x4.mul(x, x), x);
    const u = f32x4.mul(f32x4.splat(0.7978845608), f32x4.add(x, f32x4.mul(f32x4.splat(0.044715), cube)));
    return f32x4.mul(x, sigmoid4(f32x4.add(u, u)));
  }
  return f32x4.mul(x, sigmoid4(x));
}

/** cap · tanh(x / cap) on four lanes: tanh u = 1 − 2 / (1 + e²ᵘ). */
// @ts-ignore: decorator
@inline
export function softcap4(x: v128, cap: f32): v128 {
  const twice = f32x4.mul(x, f32x4.splat(2 / cap));
  const rest = f32x4.div(f32x4.splat(2), f32x4.add(f32x4.splat(1), exp4(twice)));
  return f32x4.mul(f32x4.sub(f32x4.splat(1), rest), f32x4.splat(cap));
}

/** As `activation4`, also the functions with a number. */
export function element4(id: i32, by: f32, x: v128): v128 {
  if (id == functionScale) return f32x4.mul(x, f32x4.splat(by));
  if (id == functionSoftcap) return softcap4(x, by);
  if (id == functionClamp) return f32x4.min(f32x4.max(x, f32x4.splat(-by)), f32x4.splat(by));
  return activation4(id, x);
}
