/* `round_group` of inputs.h in vectors of 16 bytes: NEON. */
#include <arm_neon.h>

INLINE void round_group(const float *x, float threshold, int8_t *codes, float *scale, int *sum) {
  enum { vectors = group_inputs / 4 };
  int32x4_t largest = vdupq_n_s32(0);
  /* As integers, so that NaN is the largest; it makes the scale NaN, and with it the sums of the whole group. */
  UNROLL for (int n = 0; n < vectors; n++) largest = vmaxq_s32(largest, vreinterpretq_s32_f32(vabsq_f32(vld1q_f32(x + 4 * n))));
  const float top = float_of((uint32_t)vmaxvq_s32(largest));
  const int any = keeps(top, threshold) && top != 0;
  *scale = any ? top / 127 : 0;
  const float32x4_t inverse = vdupq_n_f32(any ? 127 / top : 0), limit = vdupq_n_f32(threshold);
  /* Numbers from here on have no fraction: adding it rounds, halves to even. */
  const float32x4_t no_fraction = vdupq_n_f32(12582912);
  int32x4_t code[vectors], total = vdupq_n_s32(0);
  UNROLL for (int n = 0; n < vectors; n++) {
    const float32x4_t value = vld1q_f32(x + 4 * n);
    float32x4_t v = vmulq_f32(value, inverse);
    const uint32x4_t kept = vandq_u32(vcgtq_f32(vabsq_f32(value), limit), vceqq_f32(v, v));
    v = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), kept));
    v = vaddq_f32(vminq_f32(vmaxq_f32(v, vdupq_n_f32(-127)), vdupq_n_f32(127)), no_fraction);
    code[n] = vsubq_s32(vreinterpretq_s32_f32(v), vreinterpretq_s32_f32(no_fraction));
    total = vaddq_s32(total, code[n]);
  }
  UNROLL for (int n = 0; n < vectors; n += 4) {
    const int16x8_t first = vcombine_s16(vmovn_s32(code[n]), vmovn_s32(code[n + 1]));
    const int16x8_t second = vcombine_s16(vmovn_s32(code[n + 2]), vmovn_s32(code[n + 3]));
    vst1q_s8(codes + 4 * n, vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
  }
  *sum = vaddvq_s32(total);
}
