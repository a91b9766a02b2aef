/* The inputs of a group of 32 that a product keeps, and their rounding to 8 bits. The same numbers as
 * wasm/assembly/activeInputs.ts makes, so that both give the same bits. */
#include "common.h"

#include <immintrin.h>

typedef struct {
  int kept;
  /* Fours of kept inputs; the last is filled up with the first kept one times 0. */
  int fours;
  float scale;
  int sum;
  uint8_t column[group_inputs];
  /* Of those rounded, in fours. */
  _Alignas(4) int8_t code[group_inputs];
  /* Of those that are not. */
  float value[group_inputs];
} active_inputs;

INLINE uint32_t bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
INLINE float float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, 4);
  return v;
}
INLINE float magnitude(float v) { return float_of(bits_of(v) & 0x7fffffff); }

/* |x| > threshold, or NaN, which must show in the result. A negative threshold keeps all. */
INLINE int keeps(float value, float threshold) { return !(magnitude(value) <= threshold); }

/* The group's 32 inputs; an incomplete group is copied and filled with zeros. */
INLINE const float *completed(const float *x, int valid, float copy[group_inputs]) {
  if (valid == group_inputs) return x;
  memset(copy, 0, group_inputs * sizeof(float));
  memcpy(copy, x, (size_t)valid * sizeof(float));
  return copy;
}

/* 32 inputs as 8-bit integers with one scale, max|x| / 127, to nearest even; those that are not kept as 0. */
INLINE void round_group(const float *x, float threshold, int8_t *codes, float *scale, int *sum) {
  enum { vectors = group_inputs / 8 };
  const __m256i unsigned_bits = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  /* As integers, so that NaN is the largest; it makes the scale NaN, and with it the sums of the whole group. */
  UNROLL for (int n = 0; n < vectors; n++)
    largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + 8 * n)), unsigned_bits));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  const float top = float_of((uint32_t)_mm_cvtsi128_si32(four));
  const int any = keeps(top, threshold) && top != 0;
  *scale = any ? top / 127 : 0;
  const __m256 inverse = _mm256_set1_ps(any ? 127 / top : 0), limit = _mm256_set1_ps(threshold);
  const __m256 most = _mm256_set1_ps(127), least = _mm256_set1_ps(-127);
  /* Numbers from here on have no fraction: adding it rounds, halves to even. */
  const __m256 no_fraction = _mm256_set1_ps(12582912);
  __m256i code[vectors], total = _mm256_setzero_si256();
  UNROLL for (int n = 0; n < vectors; n++) {
    const __m256 value = _mm256_loadu_ps(x + 8 * n), size = _mm256_and_ps(value, _mm256_castsi256_ps(unsigned_bits));
    __m256 v = _mm256_mul_ps(value, inverse);
    v = _mm256_and_ps(v, _mm256_and_ps(_mm256_cmp_ps(size, limit, _CMP_GT_OQ), _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
    v = _mm256_add_ps(_mm256_min_ps(_mm256_max_ps(v, least), most), no_fraction);
    code[n] = _mm256_sub_epi32(_mm256_castps_si256(v), _mm256_castps_si256(no_fraction));
    total = _mm256_add_epi32(total, code[n]);
  }
  /* Packing goes by halves, so that fours of codes come in the order 0, 2, 4, 6, 1, 3, 5, 7. */
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(code[0], code[1]), _mm256_packs_epi32(code[2], code[3]));
  _mm256_storeu_si256((void *)codes, _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  *sum = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* Lists the kept ones of `valid` inputs. */
static void select_inputs(active_inputs *list, const float *x, int valid, float threshold) {
  int kept = 0;
  for (int i = 0; i < valid; i++) {
    list->column[kept] = (uint8_t)i;
    kept += keeps(x[i], threshold);
  }
  list->kept = kept;
  list->fours = (kept + 3) / 4;
}

/* For weights with scaled codes. */
static void list_rounded(active_inputs *list, const float *x, int valid, float threshold) {
  select_inputs(list, x, valid, threshold);
  if (list->kept == 0) return;
  float copy[group_inputs];
  int8_t codes[group_inputs];
  round_group(completed(x, valid, copy), threshold, codes, &list->scale, &list->sum);
  for (int n = 0; n < 4 * list->fours; n++) {
    if (n >= list->kept) list->column[n] = list->column[0];
    list->code[n] = n < list->kept ? codes[list->column[n]] : 0;
  }
}

/* For weights that are numbers, in the order in which the WebAssembly kernels add them: in passes of 8, or of 4 for up to four
 * left over, the n-th of each pass before the next of any. */
static void list_values(active_inputs *list, const float *x, int valid, float threshold) {
  active_inputs all;
  select_inputs(&all, x, valid, threshold);
  const int rest = all.kept % 8, passes = all.kept / 8 + (rest > 4);
  int next = 0;
  for (int p = 0; p < passes; p++)
    for (int n = p; n < smaller(8 * passes, all.kept); n += passes) list->column[next++] = all.column[n];
  for (int n = 8 * passes; n < all.kept; n++) list->column[next++] = all.column[n];
  for (int n = 0; n < next; n++) list->value[n] = x[list->column[n]];
  list->kept = next;
}
