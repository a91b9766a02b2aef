/* Vectors of 32 bytes that are pairs of NEON's 16, with its dot products where the compiler is told that they are there. The same names as
 * in vector512.h, which says what they do. As pairs they fill the 32 registers as vectors of AVX2 fill 16, 32 rows of a bit mask are one
 * vector, and what brings lanes into order costs nothing: a lane is a register. */
#include <arm_neon.h>

enum { lanes = 2 };
typedef struct {
  int32x4_t low, high;
} ints;
typedef struct {
  float32x4_t low, high;
} floats;
typedef ints bytes32;

/* Of registers that hold bytes, or 16-bit numbers. */
INLINE ints of_bytes(uint8x16_t low, uint8x16_t high) { return (ints){vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(high)}; }
INLINE ints of_halves(uint16x8_t low, uint16x8_t high) { return (ints){vreinterpretq_s32_u16(low), vreinterpretq_s32_u16(high)}; }
#define BYTES(v) vreinterpretq_u8_s32(v)
#define SIGNED_BYTES(v) vreinterpretq_s8_s32(v)
#define HALVES(v) vreinterpretq_u16_s32(v)
#define WORDS(v) vreinterpretq_u32_s32(v)
#define FLOATS(v) vreinterpretq_f32_s32(v)
#define BITS(v) vreinterpretq_s32_f32(v)
/* The same of both registers of one vector, of two, of three. */
#define BOTH(type, f, a) ((type){f((a).low), f((a).high)})
#define BOTH2(type, f, a, b) ((type){f((a).low, (b).low), f((a).high, (b).high)})
#define BOTH3(type, f, a, b, c) ((type){f((a).low, (b).low, (c).low), f((a).high, (b).high, (c).high)})

INLINE ints load_bytes(const void *p) { return of_bytes(vld1q_u8(p), vld1q_u8((const uint8_t *)p + 16)); }
INLINE ints load_lanes(const void *p, int count) { return count == 2 ? load_bytes(p) : of_bytes(vld1q_u8(p), vdupq_n_u8(0)); }
INLINE void store_bytes(void *p, ints v) {
  vst1q_u8(p, BYTES(v.low));
  vst1q_u8((uint8_t *)p + 16, BYTES(v.high));
}
INLINE ints repeated(int32x4_t v) { return (ints){v, v}; }
INLINE ints splat_int(int v) { return repeated(vdupq_n_s32(v)); }
INLINE ints low8(ints a, ints b) { return of_bytes(vzip1q_u8(BYTES(a.low), BYTES(b.low)), vzip1q_u8(BYTES(a.high), BYTES(b.high))); }
INLINE ints high8(ints a, ints b) { return of_bytes(vzip2q_u8(BYTES(a.low), BYTES(b.low)), vzip2q_u8(BYTES(a.high), BYTES(b.high))); }
INLINE ints low16(ints a, ints b) { return of_halves(vzip1q_u16(HALVES(a.low), HALVES(b.low)), vzip1q_u16(HALVES(a.high), HALVES(b.high))); }
INLINE ints high16(ints a, ints b) { return of_halves(vzip2q_u16(HALVES(a.low), HALVES(b.low)), vzip2q_u16(HALVES(a.high), HALVES(b.high))); }
INLINE ints low_nibbles(ints v) { return of_bytes(vandq_u8(BYTES(v.low), vdupq_n_u8(15)), vandq_u8(BYTES(v.high), vdupq_n_u8(15))); }
INLINE ints high_nibbles(ints v) { return of_bytes(vshrq_n_u8(BYTES(v.low), 4), vshrq_n_u8(BYTES(v.high), 4)); }

/* sums + four products each of signed bytes. */
INLINE int32x4_t dot_signed(int32x4_t sums, int8x16_t a, int8x16_t b) {
#ifdef __ARM_FEATURE_DOTPROD
  return vdotq_s32(sums, a, b);
#else
  /* Two products fit 16 bits: those of codes less 128, at most 128 · 127 each. */
  return vpadalq_s16(sums, vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)));
#endif
}
#ifdef __ARM_FEATURE_MATMUL_INT8
enum { q8_offset = 128 };
INLINE int32x4_t dot_q8_half(int32x4_t sums, int32x4_t bytes, int32x4_t x) { return vusdotq_s32(sums, BYTES(bytes), SIGNED_BYTES(x)); }
#else
enum { q8_offset = 0 };
INLINE int32x4_t dot_q8_half(int32x4_t sums, int32x4_t bytes, int32x4_t x) {
  return dot_signed(sums, vreinterpretq_s8_u8(veorq_u8(BYTES(bytes), vdupq_n_u8(128))), SIGNED_BYTES(x));
}
#endif
INLINE int32x4_t dot_q4_half(int32x4_t sums, int32x4_t bytes, int32x4_t x) { return dot_signed(sums, SIGNED_BYTES(bytes), SIGNED_BYTES(x)); }
INLINE ints dot_q8(ints sums, ints bytes, ints x) { return BOTH3(ints, dot_q8_half, sums, bytes, x); }
INLINE ints dot_q4(ints sums, ints bytes, ints x) { return BOTH3(ints, dot_q4_half, sums, bytes, x); }

INLINE floats load_floats(const float *p) { return (floats){vld1q_f32(p), vld1q_f32(p + 4)}; }
INLINE void store_floats(float *p, floats v) {
  vst1q_f32(p, v.low);
  vst1q_f32(p + 4, v.high);
}
INLINE floats splat_float(float v) { return (floats){vdupq_n_f32(v), vdupq_n_f32(v)}; }
INLINE floats to_floats(ints v) { return BOTH(floats, vcvtq_f32_s32, v); }
INLINE floats multiply(floats a, floats b) { return BOTH2(floats, vmulq_f32, a, b); }
INLINE floats add_floats(floats a, floats b) { return BOTH2(floats, vaddq_f32, a, b); }
INLINE float32x4_t multiply_add_four(float32x4_t a, float32x4_t b, float32x4_t c) {
#ifdef RAREFY_ROUNDS_TWICE
  return vaddq_f32(vmulq_f32(a, b), c);
#else
  return vfmaq_f32(c, a, b);
#endif
}
INLINE floats multiply_add(floats a, floats b, floats c) { return BOTH3(floats, multiply_add_four, a, b, c); }
INLINE float32x4_t low_half(int32x4_t v) { return FLOATS(vshlq_n_s32(v, 16)); }
INLINE float32x4_t high_half(int32x4_t v) { return FLOATS(vandq_s32(v, vdupq_n_s32((int)0xffff0000))); }
INLINE floats low_halves(ints v) { return BOTH(floats, low_half, v); }
INLINE floats high_halves(ints v) { return BOTH(floats, high_half, v); }

INLINE void in_order(ints v[4]) {
  const ints a = v[0], b = v[1], c = v[2], d = v[3];
  v[0] = (ints){a.low, b.low};
  v[1] = (ints){c.low, d.low};
  v[2] = (ints){a.high, b.high};
  v[3] = (ints){c.high, d.high};
}

INLINE floats load_scales(const uint8_t *p) {
  const int32x4_t both = vreinterpretq_s32_u8(vld1q_u8(p));
  return (floats){low_half(both), high_half(both)};
}

INLINE void to_halves(floats first, floats second, floats *low, floats *high) {
  *low = (floats){first.low, second.low};
  *high = (floats){first.high, second.high};
}
INLINE void from_halves(floats low, floats high, floats *first, floats *second) { to_halves(low, high, first, second); }

INLINE ints splat_byte(int v) { return repeated(vreinterpretq_s32_u8(vdupq_n_u8((uint8_t)v))); }
INLINE ints or_bits(ints a, ints b) { return BOTH2(ints, vorrq_s32, a, b); }
INLINE ints and_bits(ints a, ints b) { return BOTH2(ints, vandq_s32, a, b); }
INLINE ints xor_bits(ints a, ints b) { return BOTH2(ints, veorq_s32, a, b); }
INLINE ints subtract_ints(ints a, ints b) { return BOTH2(ints, vsubq_s32, a, b); }
INLINE int32x4_t shift_half(int32x4_t words, int32x4_t by) { return vreinterpretq_s32_u32(vshlq_u32(WORDS(words), vnegq_s32(by))); }
INLINE ints shift_right(ints words, ints by) { return BOTH2(ints, shift_half, words, by); }
INLINE ints repeat16(const void *p) { return repeated(vreinterpretq_s32_u8(vld1q_u8(p))); }
INLINE ints repeat8(const void *p) {
  const uint8x8_t eight = vld1_u8(p);
  return repeated(vreinterpretq_s32_u8(vcombine_u8(eight, eight)));
}
INLINE floats repeat_floats(const float p[4]) { return (floats){vld1q_f32(p), vld1q_f32(p)}; }
INLINE int32x4_t pick_half(int32x4_t v, int32x4_t numbers) { return vreinterpretq_s32_u8(vqtbl1q_u8(BYTES(v), BYTES(numbers))); }
INLINE ints pick_bytes(ints v, ints numbers) { return BOTH2(ints, pick_half, v, numbers); }
/* The bytes of each float by their numbers. */
INLINE float32x4_t pick_float(float32x4_t v, int32x4_t numbers) {
  const int32x4_t two_bits = vandq_s32(numbers, vdupq_n_s32(3));
  return FLOATS(pick_half(BITS(v), vmlaq_s32(vdupq_n_s32(0x03020100), two_bits, vdupq_n_s32(0x04040404))));
}
INLINE floats pick_floats(floats v, ints numbers) { return BOTH2(floats, pick_float, v, numbers); }
INLINE int32x4_t bytes_of_equal(int32x4_t a, int32x4_t b, int32x4_t v) {
  return vandq_s32(vreinterpretq_s32_u8(vceqq_u8(BYTES(a), BYTES(b))), v);
}
INLINE ints bytes_where(ints a, ints b, ints v) { return BOTH3(ints, bytes_of_equal, a, b, v); }
INLINE float32x4_t float_of_equal(int32x4_t a, int32x4_t b, float32x4_t v) {
  return FLOATS(vandq_s32(vreinterpretq_s32_u32(vceqq_s32(a, b)), BITS(v)));
}
INLINE floats floats_where(ints a, ints b, floats v) { return BOTH3(floats, float_of_equal, a, b, v); }
INLINE float32x4_t or_float(float32x4_t a, float32x4_t b) { return FLOATS(vorrq_s32(BITS(a), BITS(b))); }
INLINE floats or_floats(floats a, floats b) { return BOTH2(floats, or_float, a, b); }

INLINE bytes32 open_nibbles(const uint8_t *p) {
  const uint8x16_t pairs = vld1q_u8(p), low = vandq_u8(pairs, vdupq_n_u8(15)), high = vshrq_n_u8(pairs, 4);
  return xor_bits(of_bytes(vzip1q_u8(low, high), vzip2q_u8(low, high)), splat_byte(8));
}

/* The lookup table of the WebAssembly kernels (layout.ts) says how 8 rows are shuffled. */
INLINE const uint8_t *spread_entry(uint32_t mask, int eight, const uint8_t *table) { return table + 32 * ((mask >> 8 * eight) & 255); }
INLINE bytes32 spread_bytes(uint32_t mask, const void *codes, const uint8_t *table) {
  const uint8_t *at = codes;
  uint8x8_t eights[4];
  UNROLL for (int n = 0; n < 4; n++) {
    const uint8_t *entry = spread_entry(mask, n, table);
    eights[n] = vqtbl1_u8(vcombine_u8(vld1_u8(at), vdup_n_u8(0)), vld1_u8(entry + 16));
    at += entry[24];
  }
  return of_bytes(vcombine_u8(eights[0], eights[1]), vcombine_u8(eights[2], eights[3]));
}
/* A vector has room for the first only. */
INLINE ints joined(bytes32 first, bytes32 second) {
  (void)second;
  return first;
}
INLINE ints widened(bytes32 first) { return first; }

/* Here the order is that of `interleaved8`. */
enum { mask_vectors = 2 };
INLINE void spread_halves(uint32_t mask, const uint8_t *codes, const uint8_t *table, ints w[mask_vectors]) {
  uint8x16_t eights[4];
  UNROLL for (int n = 0; n < 4; n++) {
    const uint8_t *entry = spread_entry(mask, n, table);
    eights[n] = vqtbl1q_u8(vld1q_u8(codes), vld1q_u8(entry));
    codes += entry[25];
  }
  w[0] = of_bytes(eights[0], eights[1]);
  w[1] = of_bytes(eights[2], eights[3]);
}
INLINE void to_mask_order(floats first, floats second, floats *low, floats *high) { to_halves(first, second, low, high); }
INLINE void from_mask_order(floats low, floats high, floats *first, floats *second) { from_halves(low, high, first, second); }

/* 32 registers. */
enum { q8_blocks = 2, q4_blocks = 1, bf16_blocks = 4 };
#define UNROLL_STEPS UNROLL
/* Tokens that a tile of codes and one of numbers is multiplied with at once. */
enum { code_tokens = 4, float_tokens = 4 };
