/* What attention needs of vectors beside vector512.h. The same names as in softmax256.h. */

/* Vectors that four queries fill with four columns each. */
enum { query_vectors = 1 };
/* Keys whose scores are summed at once, and vectors of columns of values, for each of four queries: as the registers allow. */
enum { keys_at_once = 8, columns_at_once = 4 };

INLINE floats subtract_floats(floats a, floats b) { return _mm512_sub_ps(a, b); }
INLINE floats divide_floats(floats a, floats b) { return _mm512_div_ps(a, b); }
/* The second where one is NaN. */
INLINE floats larger_floats(floats a, floats b) { return _mm512_max_ps(a, b); }
INLINE floats smaller_floats(floats a, floats b) { return _mm512_min_ps(a, b); }
/* To the nearest whole number, to the even one of two. */
INLINE floats nearest_floats(floats v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* 2ⁿ for whole n that are exponents of floats. */
INLINE floats power_of_two(floats n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127)), 23));
}
/* `v`, or 0 where x is below, or at most, `bound`; not where x is NaN. */
INLINE floats unless_below(floats v, floats x, floats bound) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), v); }
INLINE floats unless_at_most(floats v, floats x, floats bound) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLE_UQ), v); }

INLINE floats repeat_four(__m128 four) { return _mm512_broadcast_f32x4(four); }
INLINE __m128 first_four(floats v) { return _mm512_castps512_ps128(v); }
/* Of the fours of a vector the largest of each place. */
INLINE __m128 largest_four(floats v) {
  const __m256 both = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
}

/* sums[key][query_vectors]: of four keys and four queries four sums each, which are added: (first + third) + (second + fourth).
 * Gives [key][query]. */
INLINE void add_fours(const floats sums[4 * query_vectors], floats scores[query_vectors]) {
  const floats a = _mm512_add_ps(_mm512_unpacklo_ps(sums[0], sums[1]), _mm512_unpackhi_ps(sums[0], sums[1]));
  const floats b = _mm512_add_ps(_mm512_unpacklo_ps(sums[2], sums[3]), _mm512_unpackhi_ps(sums[2], sums[3]));
  const floats v = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  scores[0] = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}

/* As many bytes as there are 32-bit lanes, widened. */
INLINE ints widen_bytes(__m128i bytes) { return _mm512_cvtepu8_epi32(bytes); }
/* f16 bits in the low halves of words; what is not finite becomes NaN. */
INLINE floats halves_to_floats(ints bits) {
  const ints size = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fff));
  const ints finite = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(size, 13)), _mm512_set1_ps(0x1p112f)));
  const ints nan = _mm512_maskz_set1_epi32(_mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7bff)), 0x7fc00000);
  const ints sign = _mm512_slli_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x8000)), 16);
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_or_si512(finite, nan), sign));
}
