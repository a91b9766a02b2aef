/* Vectors of 32 bytes: AVX2 and FMA, with AVX-VNNI where the compiler is told that it is there. The same names as in
 * vector512.h, which says what they do. */
#include "rows256.h"

enum { lanes = 2 };
typedef __m256i ints;
typedef __m256 floats;

INLINE ints load_bytes(const void *p) { return _mm256_loadu_si256(p); }
INLINE ints load_lanes(const void *p, int count) { return count == 2 ? load_bytes(p) : _mm256_zextsi128_si256(_mm_loadu_si128(p)); }
INLINE void store_bytes(void *p, ints v) { _mm256_storeu_si256(p, v); }
INLINE ints splat_int(int v) { return _mm256_set1_epi32(v); }
INLINE ints low8(ints a, ints b) { return _mm256_unpacklo_epi8(a, b); }
INLINE ints high8(ints a, ints b) { return _mm256_unpackhi_epi8(a, b); }
INLINE ints low16(ints a, ints b) { return _mm256_unpacklo_epi16(a, b); }
INLINE ints high16(ints a, ints b) { return _mm256_unpackhi_epi16(a, b); }
INLINE ints low_nibbles(ints v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE ints high_nibbles(ints v) { return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15)); }
INLINE ints sixteenth(ints v) { return _mm256_srai_epi32(v, 4); }

#ifdef __AVX512VNNI__
/* In narrow.c. */
#define UNROLL_STEPS UNROLL
#define WHOLE_BYTES
enum { q8_offset = 128 };
INLINE ints dot_q8(ints sums, ints bytes, ints x) { return _mm256_dpbusd_epi32(sums, bytes, x); }
INLINE ints dot_q4(ints sums, ints bytes, ints x) { return _mm256_dpbusd_epi32(sums, bytes, x); }
#elif defined(__AVXVNNI__)
#define UNROLL_STEPS UNROLL
#define WHOLE_BYTES
enum { q8_offset = 128 };
INLINE ints dot_q8(ints sums, ints bytes, ints x) { return _mm256_dpbusd_avx_epi32(sums, bytes, x); }
INLINE ints dot_q4(ints sums, ints bytes, ints x) { return _mm256_dpbusd_avx_epi32(sums, bytes, x); }
#else
/* Unrolled, compilers bring what is multiplied into an order for which 16 registers are too few. */
#define UNROLL_STEPS ROLLED
enum { q8_offset = 0 };
INLINE ints widen_pairs(ints pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
INLINE ints add_pairs(ints sums, ints pairs) { return _mm256_add_epi32(sums, widen_pairs(pairs)); }
/* Two products must fit 16 bits. Codes less 128 do: their magnitudes are unsigned and at most 128, and their signs go to the
 * inputs, whose magnitudes are at most 127. */
INLINE ints dot_q8(ints sums, ints bytes, ints x) {
  const ints codes = _mm256_xor_si256(bytes, _mm256_set1_epi8((char)128));
  return add_pairs(sums, _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes)));
}
INLINE ints dot_q4(ints sums, ints bytes, ints x) { return add_pairs(sums, _mm256_maddubs_epi16(bytes, x)); }
/* Products of bytes below 16 with inputs below 128 fit 16 bits eight fours long (8 · 2 · 15 · 127): a group is widened once, at its end. */
#define SHORT_SUMS
INLINE ints add_short(ints sums, ints bytes, ints x) { return _mm256_add_epi16(sums, _mm256_maddubs_epi16(bytes, x)); }
/* See words.h. */
#define CODE_WORDS
INLINE void open_words(ints fours, ints *first, ints *second) {
  *first = _mm256_srai_epi16(_mm256_slli_epi16(fours, 8), 8);
  *second = _mm256_srai_epi16(fours, 8);
}
INLINE ints add_words(ints sums, ints words, ints x) { return _mm256_add_epi32(sums, _mm256_madd_epi16(words, x)); }
#endif

INLINE floats load_floats(const float *p) { return _mm256_loadu_ps(p); }
INLINE void store_floats(float *p, floats v) { _mm256_storeu_ps(p, v); }
INLINE floats splat_float(float v) { return _mm256_set1_ps(v); }
INLINE floats to_floats(ints v) { return _mm256_cvtepi32_ps(v); }
INLINE floats multiply(floats a, floats b) { return _mm256_mul_ps(a, b); }
INLINE floats add_floats(floats a, floats b) { return _mm256_add_ps(a, b); }
INLINE floats multiply_add(floats a, floats b, floats c) {
#ifdef RAREFY_ROUNDS_TWICE
  return add_floats(multiply(a, b), c);
#else
  return _mm256_fmadd_ps(a, b, c);
#endif
}
INLINE floats low_halves(ints v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
INLINE floats high_halves(ints v) { return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000))); }

INLINE void in_order(ints v[4]) {
  const ints a = v[0], b = v[2];
  v[0] = _mm256_permute2x128_si256(a, v[1], 0x20);
  v[2] = _mm256_permute2x128_si256(a, v[1], 0x31);
  v[1] = _mm256_permute2x128_si256(b, v[3], 0x20);
  v[3] = _mm256_permute2x128_si256(b, v[3], 0x31);
}

INLINE floats load_scales(const uint8_t *p) {
  const ints twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)p));
  return high_halves(_mm256_sllv_epi32(twice, _mm256_setr_epi32(16, 16, 16, 16, 0, 0, 0, 0)));
}

INLINE void to_halves(floats first, floats second, floats *low, floats *high) {
  *low = _mm256_permute2f128_ps(first, second, 0x20);
  *high = _mm256_permute2f128_ps(first, second, 0x31);
}
INLINE void from_halves(floats low, floats high, floats *first, floats *second) {
  to_halves(low, high, first, second);
}

INLINE ints splat_byte(int v) { return _mm256_set1_epi8((char)v); }
INLINE ints or_bits(ints a, ints b) { return _mm256_or_si256(a, b); }
INLINE ints and_bits(ints a, ints b) { return _mm256_and_si256(a, b); }
INLINE ints xor_bits(ints a, ints b) { return _mm256_xor_si256(a, b); }
INLINE ints subtract_ints(ints a, ints b) { return _mm256_sub_epi32(a, b); }
INLINE ints shift_right(ints words, ints by) { return _mm256_srlv_epi32(words, by); }
INLINE ints repeat16(const void *p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(p)); }
INLINE ints repeat8(const void *p) {
  long long eight;
  memcpy(&eight, p, 8);
  return _mm256_set1_epi64x(eight);
}
INLINE floats repeat_floats(const float p[4]) { return _mm256_broadcast_ps((const __m128 *)p); }
INLINE ints pick_bytes(ints v, ints numbers) { return _mm256_shuffle_epi8(v, numbers); }
INLINE floats pick_floats(floats v, ints numbers) { return _mm256_permutevar_ps(v, numbers); }
INLINE ints bytes_where(ints a, ints b, ints v) { return _mm256_and_si256(_mm256_cmpeq_epi8(a, b), v); }
INLINE floats floats_where(ints a, ints b, floats v) { return _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)), v); }
INLINE floats or_floats(floats a, floats b) { return _mm256_or_ps(a, b); }

/* A vector has room for the first only. */
INLINE ints joined(__m256i first, __m256i second) {
  (void)second;
  return first;
}
INLINE ints widened(__m256i first) { return first; }

/* Here the order is that of `interleaved8`. */
enum { mask_vectors = 2 };
INLINE void spread_halves(uint32_t mask, const uint8_t *codes, const uint8_t *table, ints w[mask_vectors]) {
  __m128i eights[4];
  UNROLL for (int n = 0; n < 4; n++) {
    const uint8_t *entry = table + 32 * ((mask >> 8 * n) & 255);
    eights[n] = _mm_shuffle_epi8(_mm_loadu_si128((const void *)codes), _mm_loadu_si128((const void *)entry));
    codes += entry[25];
  }
  w[0] = _mm256_setr_m128i(eights[0], eights[1]);
  w[1] = _mm256_setr_m128i(eights[2], eights[3]);
}
INLINE void to_mask_order(floats first, floats second, floats *low, floats *high) { to_halves(first, second, low, high); }
INLINE void from_mask_order(floats low, floats high, floats *first, floats *second) { from_halves(low, high, first, second); }

/* 16 registers. */
enum { q8_blocks = 2, q4_blocks = 1, bf16_blocks = 4 };
/* Tokens that a tile of codes and one of numbers is multiplied with at once. */
enum { code_tokens = 4, float_tokens = 6 };
