/* `round_group` of inputs.h in vectors of 32 bytes: AVX2. */
#include <immintrin.h>

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
