/* 32 rows of a bit mask as bytes, for vectors of 32 bytes and of 64. */
#include <immintrin.h>

typedef __m256i bytes32;

/* Two nibbles a byte of 16 bytes to a byte each, less the code of 0. */
INLINE bytes32 open_nibbles(const uint8_t *p) {
  const __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p));
  const __m256i codes = _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), _mm256_set1_epi8(15));
  return _mm256_xor_si256(codes, _mm256_set1_epi8(8));
}

/* Absent rows as 0. `codes`: those of the rows that are there, and up to 31 bytes more. */
#ifdef __AVX512VBMI2__
INLINE bytes32 spread_bytes(uint32_t mask, const void *codes, const uint8_t *table) {
  (void)table;
  return _mm256_maskz_expand_epi8(mask, _mm256_loadu_si256(codes));
}
#else
/* Without instructions that expand, the lookup table of the WebAssembly kernels (layout.ts) says how 8 rows are shuffled. */
INLINE bytes32 spread_bytes(uint32_t mask, const void *codes, const uint8_t *table) {
  const uint8_t *at = codes;
  __m128i eights[4];
  UNROLL for (int n = 0; n < 4; n++) {
    const uint8_t *entry = table + 32 * ((mask >> 8 * n) & 255);
    eights[n] = _mm_shuffle_epi8(_mm_loadl_epi64((const void *)at), _mm_loadl_epi64((const void *)(entry + 16)));
    at += entry[24];
  }
  return _mm256_setr_m128i(_mm_unpacklo_epi64(eights[0], eights[1]), _mm_unpacklo_epi64(eights[2], eights[3]));
}
#endif
