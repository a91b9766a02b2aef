/* Vectors of 64 bytes: AVX-512 with VNNI. The same names as in vector256.h. */
#include "rows256.h"

/* Runs of 16 bytes that shuffles stay within. */
enum { lanes = 4 };
typedef __m512i ints;
typedef __m512 floats;

/* What codes of 8 bits are taken as, and so what the sums of their products start with, per 1 of the inputs' sum. */
enum { q8_offset = 128 };

INLINE ints load_bytes(const void *p) { return _mm512_loadu_si512(p); }
/* The first `count` lanes; zeros in the others, which are not read. */
INLINE ints load_lanes(const void *p, int count) { return _mm512_maskz_loadu_epi32((__mmask16)((1u << 4 * count) - 1), p); }
INLINE void store_bytes(void *p, ints v) { _mm512_storeu_si512(p, v); }
INLINE ints splat_int(int v) { return _mm512_set1_epi32(v); }
INLINE ints low8(ints a, ints b) { return _mm512_unpacklo_epi8(a, b); }
INLINE ints high8(ints a, ints b) { return _mm512_unpackhi_epi8(a, b); }
INLINE ints low16(ints a, ints b) { return _mm512_unpacklo_epi16(a, b); }
INLINE ints high16(ints a, ints b) { return _mm512_unpackhi_epi16(a, b); }
INLINE ints low_nibbles(ints v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE ints high_nibbles(ints v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
/* sums + four products each of unsigned bytes, less `q8_offset`, with signed ones. */
INLINE ints dot_q8(ints sums, ints bytes, ints x) { return _mm512_dpbusd_epi32(sums, bytes, x); }
/* The same for bytes below 16, as they are. */
INLINE ints dot_q4(ints sums, ints bytes, ints x) { return _mm512_dpbusd_epi32(sums, bytes, x); }
/* dot_q8 takes its bytes as they are, whatever they are, and adds up in 32 bits: see groups.h. */
#define WHOLE_BYTES
INLINE ints sixteenth(ints v) { return _mm512_srai_epi32(v, 4); }

INLINE floats load_floats(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store_floats(float *p, floats v) { _mm512_storeu_ps(p, v); }
INLINE floats splat_float(float v) { return _mm512_set1_ps(v); }
INLINE floats to_floats(ints v) { return _mm512_cvtepi32_ps(v); }
INLINE floats multiply(floats a, floats b) { return _mm512_mul_ps(a, b); }
INLINE floats add_floats(floats a, floats b) { return _mm512_add_ps(a, b); }
/* a · b + c, rounded as often as the WebAssembly kernels round it: once or, in engines without relaxed SIMD, twice. */
INLINE floats multiply_add(floats a, floats b, floats c) {
#ifdef RAREFY_ROUNDS_TWICE
  return add_floats(multiply(a, b), c);
#else
  return _mm512_fmadd_ps(a, b, c);
#endif
}
/* Of 32-bit words of two bf16 numbers each, those in the low and in the high halves. */
INLINE floats low_halves(ints v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
INLINE floats high_halves(ints v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000))); }

/* v[m] holds in each lane four 32-bit numbers of which those of v[m + 1] are the next: puts all in order. */
INLINE void in_order(ints v[4]) {
  const ints a = _mm512_shuffle_i32x4(v[0], v[1], 0x44), b = _mm512_shuffle_i32x4(v[2], v[3], 0x44);
  const ints c = _mm512_shuffle_i32x4(v[0], v[1], 0xee), d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  v[0] = _mm512_shuffle_i32x4(a, b, 0x88);
  v[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
  v[2] = _mm512_shuffle_i32x4(c, d, 0x88);
  v[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

/* The bf16 numbers of one vector of rows, in the order of `interleaved8`, as floats in that of the rows. */
INLINE floats load_scales(const uint8_t *p) {
  const ints twice = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7),
                                              _mm512_castsi256_si512(_mm256_loadu_si256((const void *)p)));
  const ints shifts = _mm512_setr_epi32(16, 16, 16, 16, 0, 0, 0, 0, 16, 16, 16, 16, 0, 0, 0, 0);
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_sllv_epi32(twice, shifts), _mm512_set1_epi32((int)0xffff0000)));
}

/* Two vectors of rows in order, to the order of the low and of the high halves of `interleaved8`, and back. */
INLINE void to_halves(floats first, floats second, floats *low, floats *high) {
  *low = _mm512_shuffle_f32x4(first, second, 0x88);
  *high = _mm512_shuffle_f32x4(first, second, 0xdd);
}
INLINE void from_halves(floats low, floats high, floats *first, floats *second) {
  *first = _mm512_permutex2var_ps(low, _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23), high);
  *second = _mm512_permutex2var_ps(low, _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31), high);
}

INLINE ints splat_byte(int v) { return _mm512_set1_epi8((char)v); }
INLINE ints or_bits(ints a, ints b) { return _mm512_or_si512(a, b); }
INLINE ints and_bits(ints a, ints b) { return _mm512_and_si512(a, b); }
INLINE ints xor_bits(ints a, ints b) { return _mm512_xor_si512(a, b); }
INLINE ints subtract_ints(ints a, ints b) { return _mm512_sub_epi32(a, b); }
INLINE ints shift_right(ints words, ints by) { return _mm512_srlv_epi32(words, by); }
/* The same 16 or 8 bytes, or four floats, again and again. */
INLINE ints repeat16(const void *p) { return _mm512_broadcast_i32x4(_mm_loadu_si128(p)); }
INLINE ints repeat8(const void *p) {
  long long eight;
  memcpy(&eight, p, 8);
  return _mm512_set1_epi64(eight);
}
INLINE floats repeat_floats(const float p[4]) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
/* Within each lane: bytes by their numbers, 0 for numbers above 127; floats by theirs, of which the low two bits count. */
INLINE ints pick_bytes(ints v, ints numbers) { return _mm512_shuffle_epi8(v, numbers); }
INLINE floats pick_floats(floats v, ints numbers) { return _mm512_permutevar_ps(v, numbers); }
/* `v` where a and b are equal, 0 elsewhere. */
INLINE ints bytes_where(ints a, ints b, ints v) { return _mm512_maskz_mov_epi8(_mm512_cmpeq_epi8_mask(a, b), v); }
INLINE floats floats_where(ints a, ints b, floats v) { return _mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask(a, b), v); }
INLINE floats or_floats(floats a, floats b) { return _mm512_or_ps(a, b); }

/* Rows 0 … 31 and 32 … 63 in one vector; the former alone. */
INLINE ints joined(__m256i first, __m256i second) { return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1); }
INLINE ints widened(__m256i first) { return _mm512_zextsi256_si512(first); }

/* Vectors of 32-bit words that the 16-bit codes of 32 rows of a bit mask become, in whose low and high halves rows lie in an
 * order of their own: here the even and the odd ones. */
enum { mask_vectors = 1 };
INLINE void spread_halves(uint32_t mask, const uint8_t *codes, const uint8_t *table, ints w[mask_vectors]) {
  (void)table;
  w[0] = _mm512_maskz_expand_epi16(mask, load_bytes(codes));
}
INLINE void to_mask_order(floats first, floats second, floats *low, floats *high) {
  *low = _mm512_permutex2var_ps(first, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), second);
  *high = _mm512_permutex2var_ps(first, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), second);
}
INLINE void from_mask_order(floats low, floats high, floats *first, floats *second) {
  *first = _mm512_permutex2var_ps(low, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), high);
  *second = _mm512_permutex2var_ps(low, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), high);
}

/* Vectors of rows that are worked on at once: as many sums as fit the 32 registers. */
enum { q8_blocks = 2, q4_blocks = 2, bf16_blocks = 8 };
#define UNROLL_STEPS UNROLL
/* Tokens that a tile of codes and one of numbers is multiplied with at once. */
enum { code_tokens = 6, float_tokens = 6 };
