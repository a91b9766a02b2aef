/* out[outputs[i]] = x · row i for rows of codes that lie one by one anywhere, where gates are open: what wasm/assembly/scattered.ts
 * does, with the same bits, because sums of codes are exact and are scaled and added in the same order.
 *
 * Compiled for AVX-512 and for AVX2, both with vectors of the 32 codes of a group: what the other sets have beside these, rows do not need. */
#include "common.h"
#include "inputs.h"
#include "names.h"
#include "vector256.h"

/* A group of inputs as it lies in the scratch: codes, then their scale and sum. */
enum { rounded_scale = 64, rounded_sum = 68 };

static void round_inputs(const place *at, const rarefy_rows_matvec *a, uint8_t *rounded) {
  const float *x = at_offset(at, a->x);
  for (int first = 0; first < a->cols; first += group_inputs, rounded += rarefy_rounded_group_bytes) {
    float copy[group_inputs], scale;
    int sum;
    round_group(completed(x + first, smaller(a->cols - first, group_inputs), copy), a->threshold, (int8_t *)rounded, &scale, &sum);
    memcpy(rounded + rounded_scale, &scale, sizeof scale);
    memcpy(rounded + rounded_sum, &sum, sizeof sum);
  }
}

/* The sums over the lanes of four vectors. */
INLINE __m128i add_across(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

INLINE __m128 multiply_add4(__m128 a, __m128 b, __m128 c) {
#ifdef RAREFY_ROUNDS_TWICE
  return _mm_add_ps(_mm_mul_ps(a, b), c);
#else
  return _mm_fmadd_ps(a, b, c);
#endif
}

INLINE uint32_t scale_bits(const uint8_t *row, int group) {
  uint16_t half;
  memcpy(&half, row + 2 * group, 2);
  return (uint32_t)half << 16;
}

INLINE __m256i row_codes(int bits, const uint8_t *p) {
  if (bits == 8) return _mm256_loadu_si256((const void *)p);
  const __m128i pairs = _mm_loadu_si128((const void *)p), low = _mm_set1_epi8(15);
  return _mm256_setr_m128i(_mm_and_si128(pairs, low), _mm_and_si128(_mm_srli_epi16(pairs, 4), low));
}

/* Four rows side by side. @param next rows to be fetched meanwhile */
INLINE __m128 multiply_rows(int bits, const rarefy_rows_matvec *a, const uint8_t *rounded, const uint8_t *const row[4], const uint8_t *const next[4]) {
  const int groups = (a->cols + group_inputs - 1) / group_inputs, code_bytes = 4 * bits;
  const size_t codes = (size_t)(groups + 1) / 2 * 4;
  const int offset = bits == 8 ? q8_offset : 8;
  __m128 total = _mm_setzero_ps();
  for (int slice = 0; slice < a->slices; slice++) {
    __m128 y = _mm_setzero_ps();
    for (int g = groups * slice / a->slices; g < groups * (slice + 1) / a->slices; g++) {
      const uint8_t *input = rounded + (size_t)g * rarefy_rounded_group_bytes;
      const __m256i x = _mm256_loadu_si256((const void *)input);
      float x_scale;
      int x_sum;
      memcpy(&x_scale, input + rounded_scale, sizeof x_scale);
      memcpy(&x_sum, input + rounded_sum, sizeof x_sum);
      __m256i sums[4];
      UNROLL for (int r = 0; r < 4; r++) {
        const __m256i v = row_codes(bits, row[r] + codes + (size_t)(g * code_bytes));
        sums[r] = bits == 8 ? dot_q8(_mm256_setzero_si256(), v, x) : dot_q4(_mm256_setzero_si256(), v, x);
        if (g * code_bytes % 64 == 0) prefetch(next[r] + codes + (size_t)(g * code_bytes));
      }
      const __m128i whole = _mm_sub_epi32(add_across(sums[0], sums[1], sums[2], sums[3]), _mm_set1_epi32(offset * x_sum));
      const __m128i scales = _mm_setr_epi32((int)scale_bits(row[0], g), (int)scale_bits(row[1], g), (int)scale_bits(row[2], g), (int)scale_bits(row[3], g));
      y = multiply_add4(_mm_mul_ps(_mm_cvtepi32_ps(whole), _mm_set1_ps(x_scale)), _mm_castsi128_ps(scales), y);
    }
    total = slice == 0 ? y : _mm_add_ps(total, y);
  }
  return total;
}

/* Lists the rows of a tile that are to be multiplied; the others give 0. */
static int list_open(const place *at, const rarefy_rows_matvec *a, int first, uint32_t list[rarefy_rows_at_once]) {
  const float *gate = at_offset(at, a->gate);
  float *out = at_offset(at, a->out);
  int count = 0;
  for (int i = first; i < smaller(first + rarefy_rows_at_once, a->count); i++) {
    /* A NaN is open: it must show. */
    if (a->gate == 0 || !(gate[i] <= 0)) list[count++] = (uint32_t)i;
    else out[i] = 0;
  }
  return count;
}

int NAMED(rows)(const place *at, const void *record) {
  const rarefy_rows_matvec *a = record;
  if (a->format != rarefy_format_q8 && a->format != rarefy_format_q4) return 0;
  const uint32_t *rows_at = at_offset(at, a->rows), *outputs = at_offset(at, a->outputs);
  float *out = at_offset(at, a->out);
  uint8_t *rounded = (uint8_t *)at_offset(at, a->scratch) + (size_t)at->thread * (size_t)a->scratch_bytes + rarefy_rows_scratch_bytes;
  const int tiles = (a->count + rarefy_rows_at_once - 1) / rarefy_rows_at_once;
  int is_rounded = 0, read = 0;
  for (int tile = take_work(at); tile < tiles; tile = take_work(at)) {
    uint32_t list[rarefy_rows_at_once];
    const int count = list_open(at, a, tile * rarefy_rows_at_once, list);
    read += count;
    if (!is_rounded && count > 0) round_inputs(at, a, rounded);
    is_rounded |= count > 0;
    for (int first = 0; first < count; first += 4) {
      const uint8_t *row[4], *next[4];
      UNROLL for (int r = 0; r < 4; r++) {
        row[r] = at_offset(at, rows_at[list[smaller(first + r, count - 1)]]);
        next[r] = at_offset(at, rows_at[list[smaller(first + 4 + r, count - 1)]]);
      }
      float values[4];
      _mm_storeu_ps(values, a->format == rarefy_format_q8 ? multiply_rows(8, a, rounded, row, next) : multiply_rows(4, a, rounded, row, next));
      for (int r = 0; r < smaller(4, count - first); r++) {
        const uint32_t i = list[first + r];
        out[a->outputs == 0 ? i : outputs[i]] = values[r];
      }
    }
  }
  if (a->gate != 0) add_counts(at, (double)read * a->row_bytes, 0, 0);
  return 1;
}
