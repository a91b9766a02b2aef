/* out = X · Wᵀ for many rows of X the two phases of wasm/assembly/matmul.ts: X is brought into the form that the
 * weights want, then tiles of 64 rows of W are unpacked (panels.h) and multiplied with it. X is prepared by groups of 32 inputs, tokens filled up to a
 * multiple of four: codes or f32 [groups][tokens][32], then of codes their scale and sum [groups][tokens]. */

typedef struct {
  float scale;
  int32_t sum;
} input_meta;

INLINE int is_quantised(const panel_format *format) { return format->bits < 16; }
INLINE int padded_tokens(const rarefy_matmul *a) { return (a->tokens + 3) & ~3; }
INLINE int groups_of(const rarefy_matmul *a) { return (a->cols + group_inputs - 1) / group_inputs; }
/* Bytes of one prepared X; as the host reckons, for whichever way of summing. */
INLINE size_t prepared_bytes(const rarefy_matmul *a, const panel_format *format) {
  const size_t run = !is_quantised(format) ? 128 : a->dot == rarefy_dot_byte ? 32 : 64;
  return (size_t)padded_tokens(a) * (size_t)groups_of(a) * (run + 8);
}

static void prepare_group(const place *at, const rarefy_matmul *a, int quantised, const rarefy_matrix_part *part, uint8_t *prepared, int g) {
  const int padded = padded_tokens(a);
  const int valid = smaller(a->cols - group_inputs * g, group_inputs);
  int8_t *codes = (int8_t *)prepared + (size_t)g * padded * group_inputs;
  float *values = (float *)prepared + (size_t)g * padded * group_inputs;
  input_meta *meta = (input_meta *)(prepared + (size_t)groups_of(a) * padded * group_inputs) + (size_t)g * padded;
  for (int t = 0; t < padded; t++) {
    float copy[group_inputs];
    const float *x = (const float *)at_offset(at, a->x) + (size_t)t * a->x_stride + group_inputs * g;
    x = completed(x, t < a->tokens ? valid : 0, copy);
    const float threshold = t >= part->sparse_from_row ? part->threshold : -1;
    if (quantised) round_group(x, threshold, codes + group_inputs * t, &meta[t].scale, &meta[t].sum);
    else
      for (int k = 0; k < group_inputs; k++) values[group_inputs * t + k] = keeps(x[k], threshold) ? x[k] : 0;
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
    for (int g = at->thread; g < groups_of(a); g += at->threads) prepare_group(at, a, is_quantised(format), parts + p, prepared, g);
  }
  return 1;
}

/* Bytes of one group of a panel, and how many groups fit the scratch that the host gives. */
INLINE size_t panel_bytes(const panel_format *format) { return is_quantised(format) ? code_panel + scale_panel : 4 * code_panel; }
INLINE int panel_groups(const panel_format *format) { return rarefy_panel_bytes / (int)panel_bytes(format); }

/* sums[tokens][tile_rows] += the groups of a panel times `n` tokens, two vectors of rows at a time. */
INLINE void multiply_codes(int bits, int n, const uint8_t *panel, int groups, const int8_t *codes, const input_meta *meta, int padded, float *sums) {
  for (int v = 0; v < tile_vectors; v += 2) {
    float *out = sums + 4 * lanes * v;
    floats total[12];
    UNROLL for (int t = 0; t < n; t++)
      UNROLL for (int m = 0; m < 2; m++) total[2 * t + m] = load_floats(out + tile_rows * t + 4 * lanes * m);
    for (int g = 0; g < groups; g++) {
      const uint8_t *w = panel + g * (code_panel + scale_panel) + 16 * lanes * v;
      const int8_t *x = codes + (size_t)g * padded * group_inputs;
      const input_meta *of = meta + (size_t)g * padded;
      ints part[12];
      UNROLL for (int t = 0; t < n; t++) {
        part[2 * t] = splat_int(-(bits == 8 ? q8_offset : 8) * of[t].sum);
        part[2 * t + 1] = part[2 * t];
      }
      UNROLL for (int f = 0; f < group_inputs / 4; f++) {
        const ints w0 = load_bytes(w + 4 * tile_rows * f), w1 = load_bytes(w + 4 * tile_rows * f + 16 * lanes);
        UNROLL for (int t = 0; t < n; t++) {
          int four;
          memcpy(&four, x + group_inputs * t + 4 * f, 4);
          const ints inputs = splat_int(four);
          part[2 * t] = bits == 8 ? dot_q8(part[2 * t], w0, inputs) : dot_q4(part[2 * t], w0, inputs);
          part[2 * t + 1] = bits == 8 ? dot_q8(part[2 * t + 1], w1, inputs) : dot_q4(part[2 * t + 1], w1, inputs);
        }
      }
      const float *scales = (const float *)(panel + g * (code_panel + scale_panel) + code_panel) + 4 * lanes * v;
      const floats scale0 = load_floats(scales), scale1 = load_floats(scales + 4 * lanes);
      UNROLL for (int t = 0; t < n; t++) {
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
static void multiply_panel(const rarefy_matmul *a, int bits, const uint8_t *panel, int first, int groups, const uint8_t *prepared, float *sums) {
  const int padded = padded_tokens(a);
  const size_t at = (size_t)first * padded;
  const int8_t *codes = (const int8_t *)prepared + at * group_inputs;
  const float *values = (const float *)prepared + at * group_inputs;
  const input_meta *meta = (const input_meta *)(prepared + (size_t)groups_of(a) * padded * group_inputs) + at;
  int t = 0;
#define MULTIPLY(n)                                                                                                          \
  for (; t + (n) <= padded; t += (n)) {                                                                                      \
    if (bits == 8) multiply_codes(8, n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t); \
    else if (bits == 4) multiply_codes(4, n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t); \
    else multiply_floats(n, panel, groups, values + group_inputs * t, padded, sums + tile_rows * t);                         \
  }
  MULTIPLY(tile_tokens)
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

static void multiply_tile(const place *at, const rarefy_matmul *a, const panel_format *format, const rarefy_matrix_part *part, int start) {
  uint8_t *panel = (uint8_t *)at_offset(at, a->scratch) + (size_t)at->thread * a->scratch_bytes;
  float *sums = (float *)(panel + rarefy_panel_bytes);
  const int left = (int)part->rows - start, padded_rows = ((int)part->rows + 31) & ~31, groups = groups_of(a), at_once = panel_groups(format);
  const uint8_t *prepared = (const uint8_t *)at_offset(at, a->inputs) + part->input * prepared_bytes(a, format);
  const sparse_matrix of = {
      at_offset(at, format->is_sparse ? part->weights : a->weights), format->is_sparse ? (size_t)padded_rows : a->padded_rows, a->cols, groups,
      at_offset(at, rarefy_spread_table)};
  const tile rows = {of, (format->is_sparse ? 0 : part->packed_row) + (size_t)start, smaller(tile_rows, padded_rows - start), at_once};
  memset(sums, 0, (size_t)padded_tokens(a) * tile_rows * sizeof(float));
  for (int first = 0; first < groups; first += at_once) {
    const int n = smaller(at_once, groups - first);
    for (int g = 0; g < n; g++) format->unpack(panel + (size_t)g * panel_bytes(format), &rows, first + g);
    multiply_panel(a, format->bits, panel, first, n, prepared, sums);
  }
  write_tile(at, a, sums, part->first_output + (uint32_t)start, smaller(tile_rows, left));
}

static int tiles(const place *at, const void *record) {
  const rarefy_matmul *a = record;
  const panel_format *format = panel_format_of(a->format);
  if (format == NULL) return 0;
  const rarefy_matrix_part *parts = rarefy_matmul_parts(a);
  int item = take_work(at), first = 0;
  for (int p = 0; p < a->parts_length; p++) {
    const int count = ((int)parts[p].rows + tile_rows - 1) / tile_rows;
    for (; item < first + count; item = take_work(at)) multiply_tile(at, a, format, parts + p, tile_rows * (item - first));
    first += count;
  }
  return 1;
}
