/* What attention needs of vectors beside vector256.h. The same names as in softmax512.h, which says what they do. */

enum { query_vectors = 2 };
enum { keys_at_once = 4, columns_at_once = 2 };

INLINE floats subtract_floats(floats a, floats b) { return _mm256_sub_ps(a, b); }
INLINE floats divide_floats(floats a, floats b) { return _mm256_div_ps(a, b); }
INLINE floats larger_floats(floats a, floats b) { return _mm256_max_ps(a, b); }
INLINE floats smaller_floats(floats a, floats b) { return _mm256_min_ps(a, b); }
INLINE floats nearest_floats(floats v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE floats power_of_two(floats n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE floats unless_below(floats v, floats x, floats bound) { return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_NLT_UQ), v); }
INLINE floats unless_at_most(floats v, floats x, floats bound) { return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_NLE_UQ), v); }

INLINE floats repeat_four(__m128 four) { return _mm256_setr_m128(four, four); }
INLINE __m128 first_four(floats v) { return _mm256_castps256_ps128(v); }
INLINE __m128 largest_four(floats v) { return _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }

INLINE void add_fours(const floats sums[4 * query_vectors], floats scores[query_vectors]) {
  floats of[query_vectors];
  /* Word k of each lane, a query, is key k. */
  UNROLL for (int v = 0; v < query_vectors; v++) {
    const floats a = _mm256_add_ps(_mm256_unpacklo_ps(sums[v], sums[2 + v]), _mm256_unpackhi_ps(sums[v], sums[2 + v]));
    const floats b = _mm256_add_ps(_mm256_unpacklo_ps(sums[4 + v], sums[6 + v]), _mm256_unpackhi_ps(sums[4 + v], sums[6 + v]));
    of[v] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  }
  __m128 q0 = _mm256_castps256_ps128(of[0]), q1 = _mm256_extractf128_ps(of[0], 1);
  __m128 q2 = _mm256_castps256_ps128(of[1]), q3 = _mm256_extractf128_ps(of[1], 1);
  _MM_TRANSPOSE4_PS(q0, q1, q2, q3);
  scores[0] = _mm256_setr_m128(q0, q1);
  scores[1] = _mm256_setr_m128(q2, q3);
}

INLINE ints widen_bytes(__m128i bytes) { return _mm256_cvtepu8_epi32(bytes); }
INLINE floats halves_to_floats(ints bits) {
  const ints size = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fff));
  const ints finite = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(size, 13)), _mm256_set1_ps(0x1p112f)));
  const ints nan = _mm256_and_si256(_mm256_cmpgt_epi32(size, _mm256_set1_epi32(0x7bff)), _mm256_set1_epi32(0x7fc00000));
  const ints sign = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)), 16);
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_or_si256(finite, nan), sign));
}
