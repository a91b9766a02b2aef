import { dotBytes } from "./columns";
import { mulAdd } from "./math";

/** The scales follow on the codes, which are at most f32 64 rows × 32 inputs. */
export const panelScalesAt: usize = 8192;

// Each kernel adds a panel times the prepared inputs of `tokens` (a multiple of 4) to f32 sums [tokens][64], for 8 rows ×
// 4 tokens at a time: 8 sums, 2 weights and 1 input fit the 16 registers of x86.

export function multiplyFloats(panel: usize, inputs: usize, sums: usize, tokens: i32, blocks: i32): void {
  for (let b: usize = 0; b < <usize>blocks; b++) {
    for (let t = 0; t < tokens; t += 4) {
      const y = sums + ((<usize>t) << 8) + (b << 5);
      let x = inputs + ((<usize>t) << 7);
      let w = panel + (b << 10);
      let s00 = v128.load(y);
      let s01 = v128.load(y, 16);
      let s10 = v128.load(y, 256);
      let s11 = v128.load(y, 272);
      let s20 = v128.load(y, 512);
      let s21 = v128.load(y, 528);
      let s30 = v128.load(y, 768);
      let s31 = v128.load(y, 784);
      for (let k = 0; k < 32; k++) {
        const w0 = v128.load(w);
        const w1 = v128.load(w, 16);
        let v = v128.load32_splat(x);
        s00 = mulAdd(v, w0, s00);
        s01 = mulAdd(v, w1, s01);
        v = v128.load32_splat(x, 128);
        s10 = mulAdd(v, w0, s10);
        s11 = mulAdd(v, w1, s11);
        v = v128.load32_splat(x, 256);
        s20 = mulAdd(v, w0, s20);
        s21 = mulAdd(v, w1, s21);
        v = v128.load32_splat(x, 384);
        s30 = mulAdd(v, w0, s30);
        s31 = mulAdd(v, w1, s31);
        w += 32;
        x += 4;
      }
      v128.store(y, s00);
      v128.store(y, s01, 16);
      v128.store(y, s10, 256);
      v128.store(y, s11, 272);
      v128.store(y, s20, 512);
      v128.store(y, s21, 528);
      v128.store(y, s30, 768);
      v128.store(y, s31, 784);
    }
  }
}

/** y[0, 8) += s · scales · xScale. */
// @ts-ignore: decorator
@inline
function scaleAndAdd(y: usize, s0: v128, s1: v128, scale0: v128, scale1: v128, xScale: v128): void {
  v128.store(y, mulAdd(f32x4.mul(f32x4.convert_i32x4_s(s0), xScale), scale0, v128.load(y)));
  v128.store(y, mulAdd(f32x4.mul(f32x4.convert_i32x4_s(s1), xScale), scale1, v128.load(y, 16)), 16);
}

/** @param meta per token f32 scale and i32 Σ codes; @param zero offset of the weight codes */
export function multiplyWide(panel: usize, inputs: usize, meta: usize, sums: usize, tokens: i32, blocks: i32, zero: i32): void {
  for (let b: usize = 0; b < <usize>blocks; b++) {
    const scale0 = v128.load(panel + panelScalesAt + (b << 5));
    const scale1 = v128.load(panel + panelScalesAt + (b << 5), 16);
    for (let t: usize = 0; t < <usize>tokens; t += 4) {
      const m = meta + (t << 3);
      let x = inputs + (t << 6);
      let w = panel + (b << 9);
      let s00 = i32x4.splat(-zero * load<i32>(m, 4));
      let s10 = i32x4.splat(-zero * load<i32>(m, 12));
      let s20 = i32x4.splat(-zero * load<i32>(m, 20));
      let s30 = i32x4.splat(-zero * load<i32>(m, 28));
      let s01 = s00;
      let s11 = s10;
      let s21 = s20;
      let s31 = s30;
      for (let k = 0; k < 16; k++) {
        const w0 = v128.load(w);
        const w1 = v128.load(w, 16);
        let v = v128.load32_splat(x);
        s00 = i32x4.add(s00, i32x4.dot_i16x8_s(w0, v));
        s01 = i32x4.add(s01, i32x4.dot_i16x8_s(w1, v));
        v = v128.load32_splat(x, 64);
        s10 = i32x4.add(s10, i32x4.dot_i16x8_s(w0, v));
        s11 = i32x4.add(s11, i32x4.dot_i16x8_s(w1, v));
        v = v128.load32_splat(x, 128);
        s20 = i32x4.add(s20, i32x4.dot_i16x8_s(w0, v));
        s21 = i32x4.add(s21, i32x4.dot_i16x8_s(w1, v));
        v = v128.load32_splat(x, 192);
        s30 = i32x4.add(s30, i32x4.dot_i16x8_s(w0, v));
        s31 = i32x4.add(s31, i32x4.dot_i16x8_s(w1, v));
        w += 32;
        x += 4;
      }
      const y = sums + (t << 8) + (b << 5);
      scaleAndAdd(y, s00, s01, scale0, scale1, v128.load32_splat(m));
      scaleAndAdd(y + 256, s10, s11, scale0, scale1, v128.load32_splat(m, 8));
      scaleAndAdd(y + 512, s20, s21, scale0, scale1, v128.load32_splat(m, 16));
      scaleAndAdd(y + 768, s30, s31, scale0, scale1, v128.load32_splat(m, 24));
    }
  }
}

/** As `multiplyWide`, four byte products at a time. */
export function multiplyBytes(panel: usize, inputs: usize, meta: usize, sums: usize, tokens: i32, blocks: i32, zero: i32): void {
  for (let b: usize = 0; b < <usize>blocks; b++) {
    const scale0 = v128.load(panel + panelScalesAt + (b << 5));
    const scale1 = v128.load(panel + panelScalesAt + (b << 5), 16);
    for (let t: usize = 0; t < <usize>tokens; t += 4) {
      const m = meta + (t << 3);
      let x = inputs + (t << 5);
      let w = panel + (b << 8);
      let s00 = i32x4.splat(-zero * load<i32>(m, 4));
      let s10 = i32x4.splat(-zero * load<i32>(m, 12));
      let s20 = i32x4.splat(-zero * load<i32>(m, 20));
      let s30 = i32x4.splat(-zero * load<i32>(m, 28));
      let s01 = s00;
      let s11 = s10;
      let s21 = s20;
      let s31 = s30;
      for (let k = 0; k < 8; k++) {
        const w0 = v128.load(w);
        const w1 = v128.load(w, 16);
        let v = v128.load32_splat(x);
        s00 = dotBytes(v, w0, s00);
        s01 = dotBytes(v, w1, s01);
        v = v128.load32_splat(x, 32);
        s10 = dotBytes(v, w0, s10);
        s11 = dotBytes(v, w1, s11);
        v = v128.load32_splat(x, 64);
        s20 = dotBytes(v, w0, s20);
        s21 = dotBytes(v, w1, s21);
        v = v128.load32_splat(x, 96);
        s30 = dotBytes(v, w0, s30);
        s31 = dotBytes(v, w1, s31);
        w += 32;
        x += 4;
      }
      const y = sums + (t << 8) + (b << 5);
      scaleAndAdd(y, s00, s01, scale0, scale1, v128.load32_splat(m));
      scaleAndAdd(y + 256, s10, s11, scale0, scale1, v128.load32_splat(m, 8));
      scaleAndAdd(y + 512, s20, s21, scale0, scale1, v128.load32_splat(m, 16));
      scaleAndAdd(y + 768, s30, s31, scale0, scale1, v128.load32_splat(m, 24));
    }
  }
}
