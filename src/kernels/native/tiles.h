/* out = X · Wᵀ for many rows of X over the dense formats, the two phases of wasm/assembly/matmul.ts: X is brought into the form that the
 * weights want, then tiles of 64 rows of W are multiplied with it. X is prepared by groups of 32 inputs, tokens filled up to a
 * multiple of four: codes or f32 [groups][tokens][32], then of codes their scale and sum [groups][tokens]. */

typedef struct {
  float scale;
  int32_t sum;
} input_meta;

INLINE int is_quantised(int format) { return format == rarefy_format_q8 || format == rarefy_format_q4; }
INLINE int knows_tiles(int format) { return is_quantised(format) || format == rarefy_format_bf16; }
INLINE int padded_tokens(const rarefy_matmul *a) { return (a->tokens + 3) & ~3; }
INLINE int groups_of(const rarefy_matmul *a) { return (a->cols + group_inputs - 1) / group_inputs; }
/* Bytes of one prepared X; as the host reckons, for whichever way of summing. */
INLINE size_t prepared_bytes(const rarefy_matmul *a) {
  const size_t run = !is_quantised(a->format) ? 128 : a->dot == rarefy_dot_byte ? 32 : 64;
  return (size_t)padded_tokens(a) * (size_t)groups_of(a) * (run + 8);
}

static void prepare_group(const place *at, const rarefy_matmul *a, const rarefy_matrix_part *part, uint8_t *prepared, int g) {
  const int padded = padded_tokens(a), quantised = is_quantised(a->format);
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
  if (!knows_tiles(a->format)) return 0;
  const rarefy_matrix_part *parts = rarefy_matmul_parts(a);
  for (int p = 0; p < a->parts_length; p++) {
    if (!parts[p].prepares) continue;
    uint8_t *prepared = (uint8_t *)at_offset(at, a->inputs) + parts[p].input * prepared_bytes(a);
    for (int g = at->thread; g < groups_of(a); g += at->threads) prepare_group(at, a, parts + p, prepared, g);
  }
  return 1;
}

/* A tile of 64 rows of a few groups, unpacked: of codes their bytes in the order of `side_by_side` for every four inputs, and their
 * scales in order; of bf16 f32 for every input. It stays in the first-level cache while all tokens pass. */
enum { tile_rows = 64, tile_vectors = tile_rows / (4 * lanes), code_panel = tile_rows * group_inputs, scale_panel = 4 * tile_rows };

/* Bytes of one group of a panel, and how many groups fit the scratch that the host gives. */
INLINE size_t panel_bytes(int format) { return is_quantised(format) ? code_panel + scale_panel : 4 * code_panel; }
INLINE int panel_groups(int format) { return rarefy_panel_bytes / (int)panel_bytes(format); }

/* `count` rows of the tile are rows of the matrix, a multiple of 32 with its padding. What lies `ahead` is fetched. */
INLINE void unpack_codes(int bits, uint8_t *panel, const uint8_t *group, size_t rows, int row, int count, size_t ahead) {
  const size_t column = rows * (size_t)bits / 8;
  const uint8_t *codes = group + 2 * rows + (size_t)row * (size_t)bits / 8;
  /* Vectors of packed rows that make up a tile. */
  const int step = bits == 8 ? 16 * lanes : 32 * lanes;
  for (int f = 0; f < group_inputs / 4; f++)
    for (int first = 0; first < tile_rows; first += step) {
      const int whole = smaller((count - first) * bits / 128, smaller(lanes, (tile_rows - first) * bits / 128));
      if (whole <= 0) continue;
      ints v[4], o[4];
      for (int i = 0; i < 4; i++) {
        const uint8_t *at = codes + (size_t)(4 * f + i) * column + first * bits / 8;
        v[i] = whole == lanes ? load_bytes(at) : load_lanes(at, whole);
        prefetch_later(at + ahead);
      }
      side_by_side(v[0], v[1], v[2], v[3], o);
      /* Word m of lane k are rows 16 k + 4 m …, of nibbles 32 k + 4 m … and 16 more. */
      if (bits == 8) {
        in_order(o);
        for (int m = 0; m < 4; m++) store_bytes(panel + 4 * tile_rows * f + 4 * first + 16 * lanes * m, o[m]);
      } else {
        ints high[4];
        for (int m = 0; m < 4; m++) {
          high[m] = high_nibbles(o[m]);
          o[m] = low_nibbles(o[m]);
        }
        in_order(o);
        in_order(high);
        for (int m = 0; m < 4; m++) {
          const int n = 4 * lanes * m, to = first + n / 16 * 32 + n % 16;
          if (to >= tile_rows) break;
          store_bytes(panel + 4 * tile_rows * f + 4 * to, o[m]);
          store_bytes(panel + 4 * tile_rows * f + 4 * (to + 16), high[m]);
        }
      }
    }
  float *scales = (float *)(panel + code_panel);
  for (int n = 0; n < count; n += 4 * lanes) store_floats(scales + n, load_scales(group + 2 * (size_t)(row + n)));
}

INLINE void unpack_halves(uint8_t *panel, const uint8_t *group, size_t rows, int row, int count, size_t ahead) {
  for (int k = 0; k < group_inputs; k++) {
    const uint8_t *at = group + 2 * ((size_t)k * rows + (size_t)row);
    float *to = (float *)panel + tile_rows * k;
    for (int n = 0; n < count; n += 4 * lanes) store_floats(to + n, load_scales(at + 2 * n));
    for (int line = 0; line < 2 * count; line += 64) prefetch_later(at + ahead + line);
  }
}

static void unpack(int format, uint8_t *panel, const uint8_t *group, size_t rows, int row, int count, size_t ahead) {
  if (format == rarefy_format_q8) unpack_codes(8, panel, group, rows, row, count, ahead);
  else if (format == rarefy_format_q4) unpack_codes(4, panel, group, rows, row, count, ahead);
  else unpack_halves(panel, group, rows, row, count, ahead);
}

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
static void multiply_panel(const rarefy_matmul *a, const uint8_t *panel, int first, int groups, const uint8_t *prepared, float *sums) {
  const int padded = padded_tokens(a), format = a->format;
  const size_t at = (size_t)first * padded;
  const int8_t *codes = (const int8_t *)prepared + at * group_inputs;
  const float *values = (const float *)prepared + at * group_inputs;
  const input_meta *meta = (const input_meta *)(prepared + (size_t)groups_of(a) * padded * group_inputs) + at;
  int t = 0;
#define MULTIPLY(n)                                                                                                          \
  for (; t + (n) <= padded; t += (n)) {                                                                                      \
    if (format == rarefy_format_q8) multiply_codes(8, n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t); \
    else if (format == rarefy_format_q4) multiply_codes(4, n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t); \
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

static void multiply_tile(const place *at, const rarefy_matmul *a, const rarefy_matrix_part *part, int start) {
  uint8_t *panel = (uint8_t *)at_offset(at, a->scratch) + (size_t)at->thread * a->scratch_bytes;
  float *sums = (float *)(panel + rarefy_panel_bytes);
  const int left = (int)part->rows - start, count = smaller(tile_rows, (left + 31) & ~31), groups = groups_of(a);
  const int padded = padded_tokens(a), format = a->format, row = (int)part->packed_row + start;
  const size_t rows = a->padded_rows;
  const size_t group_bytes = format == rarefy_format_q8 ? 34 * rows : format == rarefy_format_q4 ? 18 * rows : 64 * rows;
  const uint8_t *prepared = (const uint8_t *)at_offset(at, a->inputs) + part->input * prepared_bytes(a);
  memset(sums, 0, (size_t)padded * tile_rows * sizeof(float));
  const int at_once = panel_groups(format);
  for (int first = 0; first < groups; first += at_once) {
    const int n = smaller(at_once, groups - first);
    for (int g = 0; g < n; g++)
      unpack(format, panel + (size_t)g * panel_bytes(format), (const uint8_t *)at_offset(at, a->weights) + (size_t)(first + g) * group_bytes, rows, row,
             count, (size_t)at_once * group_bytes);
    multiply_panel(a, panel, first, n, prepared, sums);
  }
  write_tile(at, a, sums, part->first_output + (uint32_t)start, smaller(tile_rows, left));
}

static int tiles(const place *at, const void *record) {
  const rarefy_matmul *a = record;
  if (!knows_tiles(a->format)) return 0;
  const rarefy_matrix_part *parts = rarefy_matmul_parts(a);
  int item = take_work(at), first = 0;
  for (int p = 0; p < a->parts_length; p++) {
    const int count = ((int)parts[p].rows + tile_rows - 1) / tile_rows;
    for (; item < first + count; item = take_work(at)) multiply_tile(at, a, parts + p, tile_rows * (item - first));
    first += count;
  }
  return 1;
}
