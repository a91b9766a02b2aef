/* out = X · Wᵀ for many rows of X the two phases of wasm/assembly/matmul.ts: X is brought into the form that the
 * weights want, then tiles of 64 rows of W are unpacked (panels.h) and multiplied with it. X is prepared by groups of 32 inputs, tokens filled up to a
 * multiple of four: codes or f32 [groups][tokens][32], then of codes their scale and start [groups][tokens]. */

INLINE int is_quantised(const panel_format *format) { return format->bits < 16; }
INLINE int padded_tokens(const rarefy_matmul *a) { return (a->tokens + 3) & ~3; }
INLINE int groups_of(const rarefy_matmul *a) { return (a->cols + group_inputs - 1) / group_inputs; }
/* Bytes of one prepared X; as the host reckons, for whichever way of summing. */
INLINE size_t prepared_bytes(const rarefy_matmul *a, const panel_format *format) {
  const size_t run = !is_quantised(format) ? 128 : a->dot == rarefy_dot_byte ? 32 : 64;
  return (size_t)padded_tokens(a) * (size_t)groups_of(a) * (run + 8);
}

/* Groups that are prepared together, so that what is read of each token lies together. */
enum { prepared_at_once = 4 };

static void prepare_groups(const place *at, const rarefy_matmul *a, const panel_format *format, const rarefy_matrix_part *part, uint8_t *prepared, int first,
                           int end) {
  const int padded = padded_tokens(a);
  input_meta *meta = (input_meta *)(prepared + (size_t)groups_of(a) * padded * group_inputs);
  for (int t = 0; t < padded; t++) {
    const float threshold = t >= part->sparse_from_row ? part->threshold : -1;
    for (int g = first; g < end; g++) {
      const size_t n = (size_t)g * padded + t;
      float copy[group_inputs];
      const float *x = (const float *)at_offset(at, a->x) + (size_t)t * a->x_stride + group_inputs * g;
      x = completed(x, t < a->tokens ? smaller(a->cols - group_inputs * g, group_inputs) : 0, copy);
      if (is_quantised(format)) {
        int sum;
        round_group(x, threshold, (int8_t *)prepared + group_inputs * n, &meta[n].scale, &sum);
        meta[n].start = start_of(format->bits, sum);
      } else
        for (int k = 0; k < group_inputs; k++) ((float *)prepared)[group_inputs * n + k] = keeps(x[k], threshold) ? x[k] : 0;
    }
  }
}

static int prepare(const place *at, const void *record) {
  const rarefy_matmul *a = record;
  const panel_format *format = panel_format_of(a->format);
  if (format == NULL) return 0;
  const rarefy_matrix_part *parts = rarefy_matmul_parts(a);
  for (int p = 0; p < a->parts_length; p++) {
    if (!parts[p].prepares) continue;
    uint8_t *prepared = (uint8_t *)at_offset(at, a->inputs) + parts[p].input * prepared_bytes(a, format);
    for (int g = prepared_at_once * at->thread; g < groups_of(a); g += prepared_at_once * at->threads)
      prepare_groups(at, a, format, parts + p, prepared, g, smaller(g + prepared_at_once, groups_of(a)));
  }
  return 1;
}

/* Bytes of one group of a panel, and how many groups fit the scratch that the host gives. */
INLINE size_t panel_bytes(const panel_format *format) { return is_quantised(format) ? code_bytes(format->bits) + scale_panel : 4 * code_panel; }
INLINE int panel_groups(const panel_format *format) { return rarefy_panel_bytes / (int)panel_bytes(format); }

/* sums[tokens][tile_rows] += the groups of a panel times `n` tokens, two vectors of rows at a time. */
INLINE void multiply_codes(int bits, int n, const uint8_t *panel, int groups, const int8_t *codes, const input_meta *meta, int padded, float *sums) {
  /* A step is four bytes of a row and of a token: four inputs, or two as words. */
  const size_t steps = are_words(bits) ? group_inputs / 2 : group_inputs / 4, panel_step = code_bytes(bits) + scale_panel;
  const uint8_t *inputs_of = (const uint8_t *)codes;
  size_t inputs_step = (size_t)padded * group_inputs;
#ifdef CODE_WORDS
  uint8_t words[rarefy_panel_bytes / (2 * code_panel) * code_tokens * words_of_group];
  if (are_words(bits)) {
    widen_inputs(n, groups, codes, padded, words);
    inputs_of = words;
    inputs_step = (size_t)n * words_of_group;
  }
#endif
  for (int v = 0; v < tile_vectors; v += 2) {
    float *out = sums + 4 * lanes * v;
    floats total[12];
    UNROLL for (int t = 0; t < n; t++)
      UNROLL for (int m = 0; m < 2; m++) total[2 * t + m] = load_floats(out + tile_rows * t + 4 * lanes * m);
    for (int g = 0; g < groups; g++) {
      const uint8_t *w = panel + g * panel_step + 16 * lanes * v, *x = inputs_of + g * inputs_step;
      const input_meta *of = meta + (size_t)g * padded;
      ints part[12];
      UNROLL for (int t = 0; t < n; t++) {
        part[2 * t] = splat_int(bits == 8 && q8_offset == 0 ? 0 : of[t].start);
        part[2 * t + 1] = part[2 * t];
      }
      UNROLL_STEPS for (size_t s = 0; s < steps; s++) {
        const ints w0 = load_bytes(w + 4 * tile_rows * s), w1 = load_bytes(w + 4 * tile_rows * s + 16 * lanes);
        UNROLL for (int t = 0; t < n; t++) {
          int own;
          memcpy(&own, x + 4 * (steps * t + s), 4);
          const ints inputs = splat_int(own);
          part[2 * t] = are_words(bits) ? add_words(part[2 * t], w0, inputs) : add_dots(bits, part[2 * t], w0, inputs);
          part[2 * t + 1] = are_words(bits) ? add_words(part[2 * t + 1], w1, inputs) : add_dots(bits, part[2 * t + 1], w1, inputs);
        }
      }
      const float *scales = (const float *)(panel + g * panel_step + code_bytes(bits)) + 4 * lanes * v;
      const floats scale0 = load_floats(scales), scale1 = load_floats(scales + 4 * lanes);
      UNROLL for (int t = 0; t < n; t++) {
        part[2 * t] = end_sums(bits, part[2 * t]);
        part[2 * t + 1] = end_sums(bits, part[2 * t + 1]);
        const floats x_scale = splat_float(of[t].scale);
        total[2 * t] = multiply_add(multiply(to_floats(part[2 * t]), x_scale), scale0, total[2 * t]);
        total[2 * t + 1] = multiply_add(multiply(to_floats(part[2 * t + 1]), x_scale), scale1, total[2 * t + 1]);
      }
    }
    UNROLL for (int t = 0; t < n; t++)
      UNROLL for (int m = 0; m < 2; m++) store_floats(out + tile_rows * t + 4 * lanes * m, total[2 * t + m]);
  }
}

INLINE void multiply_floats(int n, const uint8_t *panel, int groups, const float *values, int padded, float *sums) {
  for (int v = 0; v < tile_vectors; v += 2) {
    float *out = sums + 4 * lanes * v;
    floats total[12];
    UNROLL for (int t = 0; t < n; t++)
      UNROLL for (int m = 0; m < 2; m++) total[2 * t + m] = load_floats(out + tile_rows * t + 4 * lanes * m);
    for (int g = 0; g < groups; g++) {
      const float *w = (const float *)panel + (size_t)g * code_panel + 4 * lanes * v;
      const float *x = values + (size_t)g * padded * group_inputs;
      for (int k = 0; k < group_inputs; k++) {
        const floats w0 = load_floats(w + tile_rows * k), w1 = load_floats(w + tile_rows * k + 4 * lanes);
        UNROLL for (int t = 0; t < n; t++) {
          const floats input = splat_float(x[group_inputs * t + k]);
          total[2 * t] = multiply_add(input, w0, total[2 * t]);
          total[2 * t + 1] = multiply_add(input, w1, total[2 * t + 1]);
        }
      }
    }
    UNROLL for (int t = 0; t < n; t++)
      UNROLL for (int m = 0; m < 2; m++) store_floats(out + tile_rows * t + 4 * lanes * m, total[2 * t + m]);
  }
}

/* A panel times all tokens. `first`: its first group. */
static void multiply_panel(const rarefy_matmul *a, int bits, uint8_t *panel, int first, int groups, const uint8_t *prepared, float *sums) {
  const int padded = padded_tokens(a);
  const size_t at = (size_t)first * padded;
  const int8_t *codes = (const int8_t *)prepared + at * group_inputs;
  const float *values = (const float *)prepared + at * group_inputs;
  const input_meta *meta = (const input_meta *)(prepared + (size_t)groups_of(a) * padded * group_inputs) + at;
#ifdef __AMX_INT8__
  if (bits < 16 && padded >= fewest_tile_tokens) {
    multiply_in_tiles(bits, panel, groups, codes, meta, padded, sums);
    return;
  }
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
  if (bits < 16) {
    multiply_matrices(panel, groups, codes, meta, padded, sums);
    return;
  }
#endif
  int t = 0;
  /* 8 tokens are two times 4, not 6 and 2: of 2 there are too few sums to hide how long a product takes. */
#define MULTIPLY(n)                                                                                                          \
  for (; t + (n) <= padded && ((n) <= 4 || padded - t != 8); t += (n)) {                                                     \
    if (bits < 16 && (n) > code_tokens) break;                                                                               \
    if (bits == 8) multiply_codes(8, n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t);    \
    else if (bits == 4) multiply_codes(4, n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t); \
    else multiply_floats(n, panel, groups, values + group_inputs * t, padded, sums + tile_rows * t);                         \
  }
  MULTIPLY(float_tokens)
  MULTIPLY(4)
  MULTIPLY(2)
#undef MULTIPLY
}

/* out[t][first …] = sums[t] (+ bias) (+ out) */
static void write_tile(const place *at, const rarefy_matmul *a, const float *sums, uint32_t first, int count) {
  const float *bias = a->bias == 0 ? NULL : (const float *)at_offset(at, a->bias) + first;
  for (int t = 0; t < a->tokens; t++) {
    float *out = (float *)at_offset(at, a->out) + (size_t)t * a->out_stride + first;
    for (int i = 0; i < count; i++) {
      float v = sums[tile_rows * t + i];
      if (bias != NULL) v += bias[i];
      out[i] = a->accumulate ? v + out[i] : v;
    }
  }
}

static void write_tiles(const place *at, const rarefy_matmul *a, const rarefy_matrix_part *part, int start, int count, const float *sums) {
  for (int n = 0; n < count; n++) {
    const int row = start + n * tile_rows;
    const float *own = sums + (size_t)n * padded_tokens(a) * tile_rows;
    write_tile(at, a, own, part->first_output + (uint32_t)row, smaller(tile_rows, (int)part->rows - row));
  }
}

INLINE const uint8_t *prepared_of(const place *at, const rarefy_matmul *a, const panel_format *format, const rarefy_matrix_part *part) {
  return (const uint8_t *)at_offset(at, a->inputs) + part->input * prepared_bytes(a, format);
}

/* Of a part, from `row` on. `ahead`: see `tile`. */
INLINE tile tile_at(const place *at, const rarefy_matmul *a, const panel_format *format, const rarefy_matrix_part *part, int row, int ahead) {
  const int padded_rows = ((int)part->rows + 31) & ~31;
  const sparse_matrix of = {
      at_offset(at, format->is_sparse ? part->weights : a->weights), format->is_sparse ? (size_t)padded_rows : a->padded_rows, a->cols, groups_of(a),
      at_offset(at, rarefy_spread_table)};
  return (tile){of, (format->is_sparse ? 0 : part->packed_row) + (size_t)row, smaller(tile_rows, padded_rows - row), ahead};
}

INLINE int tiles_of(const rarefy_matrix_part *part) { return ((int)part->rows + tile_rows - 1) / tile_rows; }

static int all_tiles(const rarefy_matmul *a) {
  const rarefy_matrix_part *parts = rarefy_matmul_parts(a);
  int all = 0;
  for (int p = 0; p < a->parts_length; p++) all += tiles_of(parts + p);
  return all;
}

#include "few.h"

/* Several tiles beside each other, so that what is read of each input's column lies together. */
static void multiply_many(const place *at, const rarefy_matmul *a, const panel_format *format, const rarefy_matrix_part *part, int start, int count) {
  uint8_t *panels = (uint8_t *)at_offset(at, a->scratch) + (size_t)at->thread * a->scratch_bytes;
  float *sums = (float *)(panels + rarefy_panel_bytes);
  const size_t tile_sums = (size_t)padded_tokens(a) * tile_rows, panel = panel_bytes(format);
  const int groups = groups_of(a), at_once = panel_groups(format) / count;
  const uint8_t *prepared = prepared_of(at, a, format, part);
  tile rows[rarefy_tiles_at_once];
  for (int n = 0; n < count; n++) rows[n] = tile_at(at, a, format, part, start + n * tile_rows, at_once);
  memset(sums, 0, count * tile_sums * sizeof(float));
  for (int first = 0; first < groups; first += at_once) {
    const int some = smaller(at_once, groups - first);
    for (int g = 0; g < some; g++)
      for (int n = 0; n < count; n++) format->unpack(panels + (size_t)(n * at_once + g) * panel, rows + n, first + g);
    for (int n = 0; n < count; n++)
      multiply_panel(a, format->bits, panels + (size_t)(n * at_once) * panel, first, some, prepared, sums + n * tile_sums);
  }
  write_tiles(at, a, part, start, count, sums);
}

/* As many tiles at once as leave each thread some work, and fit the panels with some groups each: with fewer of bf16, of which X is four times as
 * large, and what one tile has read of it the next finds in a cache. */
static int many_tiles_at_once(const place *at, const rarefy_matmul *a, const panel_format *format) {
  return larger(1, smaller(all_tiles(a) / (4 * at->threads), smaller(rarefy_tiles_at_once, panel_groups(format) / (is_quantised(format) ? 4 : 2))));
}

static int tiles(const place *at, const void *record) {
  const rarefy_matmul *a = record;
  const panel_format *format = panel_format_of(a->format);
  if (format == NULL) return 0;
  const int are_few = a->tokens <= most_few_tokens;
  const rarefy_matrix_part *parts = rarefy_matmul_parts(a);
  const int at_once = are_few ? few_tiles_at_once(at, a, format) : many_tiles_at_once(at, a, format);
  int item = take_work(at), first = 0;
  for (int p = 0; p < a->parts_length; p++) {
    const int count = tiles_of(parts + p), items = (count + at_once - 1) / at_once;
    for (; item < first + items; item = take_work(at)) {
      const int start = at_once * (item - first), some = smaller(at_once, count - start);
      if (are_few) multiply_few(at, a, format, parts + p, tile_rows * start, some);
      else multiply_many(at, a, format, parts + p, tile_rows * start, some);
    }
    first += items;
  }
  return 1;
}
