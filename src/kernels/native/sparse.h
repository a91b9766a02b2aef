/* The inner loops of products with formats that leave zeros out (src/pack), of which every part of a stack is a matrix of its own.
 * Bit masks are opened by the instructions that expand, 2:4 by those that permute: AVX-512 alone has both. */

/* One group of inputs of a part. */
typedef struct {
  const uint8_t *weights;
  size_t rows;
  int cols, groups, group;
  /* Its inputs, of which `valid` are, and those of the next group; NULL behind the last. */
  const float *x;
  int valid;
  const active_inputs *now, *next;
  float threshold;
} sparse_group;

/* y[0, rows) += W · x over one group; returns the bytes of weights that were read. */
typedef size_t add_sparse_group(float *y, const sparse_group *of);

#ifdef RAREFY_HAS_SPARSE

INLINE uint32_t word_at(const uint8_t *p) {
  uint32_t word;
  memcpy(&word, p, 4);
  return word;
}

/* A bit mask: where each tile of 512 rows of each input begins, scales, then the runs of the inputs. */
enum { run_tile = 512 };
typedef struct {
  const uint8_t *table, *scales, *data;
  size_t tiles;
} mask_layout;

INLINE mask_layout mask_of(const sparse_group *of, int bits) {
  const size_t tiles = (of->rows + run_tile - 1) / run_tile;
  const uint8_t *scales = of->weights + 4 * ((size_t)of->cols * tiles + 1);
  return (mask_layout){of->weights, scales, scales + (bits == 16 ? 0 : 2 * of->rows * (size_t)of->groups), tiles};
}

INLINE const uint8_t *run_of(const mask_layout *mask, int group, int input) {
  return mask->data + word_at(mask->table + 4 * ((size_t)(group_inputs * group + input) * mask->tiles));
}

INLINE size_t run_bytes(const mask_layout *mask, int group, int input) {
  const uint8_t *entry = mask->table + 4 * ((size_t)(group_inputs * group + input) * mask->tiles);
  return word_at(entry + 4 * mask->tiles) - word_at(entry);
}

/* Fetches what the next group's runs begin with. */
INLINE void fetch_next_runs(const sparse_group *of, const mask_layout *mask, int line) {
  if (of->next == NULL) return;
  for (int n = 0; n < of->next->kept; n++) prefetch(run_of(mask, of->group + 1, of->next->column[n]) + 64 * line);
}

/* 32 rows of one run as bytes, absent ones as the code of 0 with an offset; moves on. */
INLINE __m256i expand_codes(int bits, const uint8_t **at) {
  const uint32_t mask = word_at(*at);
  const unsigned count = (unsigned)__builtin_popcount(mask);
  __m256i codes;
  if (bits == 8) codes = _mm256_loadu_si256((const void *)(*at + 4));
  else {
    /* Two nibbles a byte, spread to a byte each; 0 stands for the code of 0 meanwhile. */
    const __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(*at + 4)));
    codes = _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), _mm256_set1_epi8(15));
    codes = _mm256_xor_si256(codes, _mm256_set1_epi8(8));
  }
  *at += 4 + (bits == 8 ? count : (count + 1) / 2);
  return _mm256_xor_si256(_mm256_maskz_expand_epi8(mask, codes), _mm256_set1_epi8((char)(bits == 8 ? 128 : 8)));
}

/* 64 rows of four runs at a time: integers of all inputs stay in registers, the places in the runs in memory. */
INLINE size_t add_mask_codes(int bits, float *y, const sparse_group *of) {
  const mask_layout mask = mask_of(of, bits);
  const active_inputs *now = of->now;
  const uint8_t *at[group_inputs];
  size_t bytes = 2 * of->rows;
  for (int n = 0; n < 4 * now->fours; n++) at[n] = run_of(&mask, of->group, now->column[n]);
  for (int n = 0; n < now->kept; n++) bytes += run_bytes(&mask, of->group, now->column[n]);
  const uint8_t *scales = mask.scales + 2 * of->rows * (size_t)of->group;
  const floats x_scale = splat_float(now->scale);
  for (size_t row = 0; row < of->rows; row += 64) {
    const int both = row + 64 <= of->rows;
    ints sums[4];
    UNROLL for (int m = 0; m < 4; m++) sums[m] = splat_int(-(bits == 8 ? 128 : 8) * now->sum);
    for (int f = 0; f < now->fours; f++) {
      ints v[4], o[4];
      UNROLL for (int i = 0; i < 4; i++) {
        const uint8_t **run = &at[4 * f + i];
        prefetch(*run + 256);
        const __m256i first = expand_codes(bits, run);
        v[i] = _mm512_castsi256_si512(first);
        if (both) v[i] = _mm512_inserti64x4(v[i], expand_codes(bits, run), 1);
      }
      int x;
      memcpy(&x, now->code + 4 * f, 4);
      side_by_side(v[0], v[1], v[2], v[3], o);
      UNROLL for (int m = 0; m < 4; m++) sums[m] = _mm512_dpbusd_epi32(sums[m], o[m], splat_int(x));
    }
    if (row + 5 * 64 >= of->rows) fetch_next_runs(of, &mask, (int)((of->rows - row) / 64));
    in_order(sums);
    UNROLL for (int m = 0; m < 4; m++)
      if (m < 2 || both) add_scaled(y + row + 16 * m, sums[m], x_scale, scales + 2 * (row + 16 * (size_t)m));
  }
  return bytes;
}

static size_t add_mask_q8(float *y, const sparse_group *of) { return add_mask_codes(8, y, of); }
static size_t add_mask_q4(float *y, const sparse_group *of) { return add_mask_codes(4, y, of); }

/* 64 rows at a time; of 32, even and odd rows lie apart while they are summed. */
INLINE void add_mask_rows(int blocks, float *y, const uint8_t **at, const float *x, int count) {
  const ints evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const ints odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const ints first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const ints second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  floats even[2], odd[2];
  UNROLL for (int b = 0; b < blocks; b++) {
    const floats low = load_floats(y + 32 * b), high = load_floats(y + 32 * b + 16);
    even[b] = _mm512_permutex2var_ps(low, evens, high);
    odd[b] = _mm512_permutex2var_ps(low, odds, high);
  }
  for (int n = 0; n < count; n++) {
    const floats v = splat_float(x[n]);
    const uint8_t *p = at[n];
    prefetch(p + 512);
    UNROLL for (int b = 0; b < blocks; b++) {
      const uint32_t mask = word_at(p);
      const ints w = _mm512_maskz_expand_epi16(mask, load_bytes(p + 4));
      even[b] = multiply_add(low_halves(w), v, even[b]);
      odd[b] = multiply_add(high_halves(w), v, odd[b]);
      p += 4 + 2 * (size_t)__builtin_popcount(mask);
    }
    at[n] = p;
  }
  UNROLL for (int b = 0; b < blocks; b++) {
    store_floats(y + 32 * b, _mm512_permutex2var_ps(even[b], first, odd[b]));
    store_floats(y + 32 * b + 16, _mm512_permutex2var_ps(even[b], second, odd[b]));
  }
}

static size_t add_mask_bf16(float *y, const sparse_group *of) {
  const mask_layout mask = mask_of(of, 16);
  const uint8_t *at[group_inputs];
  float x[group_inputs];
  size_t bytes = 0;
  /* In the order of the WebAssembly kernels: passes of 8. */
  const int kept = of->now->kept, passes = (kept + 7) / 8;
  int count = 0;
  for (int p = 0; p < passes; p++)
    for (int n = p; n < kept; n += passes, count++) {
      const int input = of->now->column[n];
      at[count] = run_of(&mask, of->group, input);
      x[count] = of->x[input];
      bytes += run_bytes(&mask, of->group, input);
    }
  size_t row = 0;
  for (; row + 64 <= of->rows; row += 64) {
    if (row + 9 * 64 >= of->rows) fetch_next_runs(of, &mask, (int)((of->rows - row) / 64));
    add_mask_rows(2, y + row, at, x, count);
  }
  if (row < of->rows) add_mask_rows(1, y + row, at, x, count);
  return bytes;
}

/* 2:4 of 8- and 4-bit codes, four units of 8 inputs a group. A vector of codes are 16 rows, four codes each; the inputs are brought
 * to the codes by their positions. */
INLINE size_t add_fours_codes(int bits, float *y, const sparse_group *of) {
  const size_t blocks = of->rows / 32, block_bytes = bits == 8 ? 160 : 96, unit_bytes = blocks * block_bytes;
  const uint8_t *scales = of->weights + 2 * of->rows * (size_t)of->group;
  const uint8_t *data = of->weights + 2 * of->rows * (size_t)of->groups + 4 * (size_t)of->group * unit_bytes;
  float copy[group_inputs], scale;
  int8_t codes[group_inputs];
  int sum;
  round_group(completed(of->x, of->valid, copy), of->threshold, codes, &scale, &sum);
  const uint8_t *units[4];
  ints x[4];
  int count = 0;
  for (int unit = 0; unit < 4; unit++) {
    int kept = 0;
    for (int i = 8 * unit; i < smaller(of->valid, 8 * unit + 8); i++) kept += keeps(of->x[i], of->threshold);
    if (kept == 0) continue;
    long long eight;
    memcpy(&eight, codes + 8 * unit, 8);
    x[count] = _mm512_set1_epi64(eight);
    units[count++] = data + (size_t)unit * unit_bytes;
  }
  const floats x_scale = splat_float(scale);
  /* Vectors of 4 rows keep their positions in two bits each of the same bytes. */
  const ints shifts = _mm512_setr_epi64(0, 0, 0x0002000200020002, 0x0002000200020002, 0x0004000400040004, 0x0004000400040004,
                                        0x0006000600060006, 0x0006000600060006);
  const ints three = _mm512_set1_epi8(3), fours = _mm512_set1_epi32(0x04040000), offset = _mm512_set1_epi8((char)(bits == 8 ? 128 : 8));
  for (size_t block = 0; block < blocks; block++) {
    UNROLL for (int half = 0; half < 2; half++) {
      ints sums = splat_int(0), offsets = splat_int(0);
      for (int unit = 0; unit < count; unit++) {
        const uint8_t *at = units[unit] + block * block_bytes;
        /* In a group units follow on each other, so that the next rows lie ahead of each. */
        prefetch(at + 512 + 64 * half);
        const ints twice = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)(at + 16 * half)));
        const ints positions = _mm512_or_si512(_mm512_and_si512(_mm512_srlv_epi16(twice, shifts), three), fours);
        const ints inputs = _mm512_shuffle_epi8(x[unit], positions);
        const ints packed = load_bytes(at + 32 + (bits == 8 ? 64 * half : 0));
        const ints w = bits == 8 ? packed : half == 0 ? low_nibbles(packed) : high_nibbles(packed);
        sums = _mm512_dpbusd_epi32(sums, w, inputs);
        offsets = _mm512_dpbusd_epi32(offsets, offset, inputs);
      }
      const size_t row = 32 * block + 16 * (size_t)half;
      add_scaled(y + row, _mm512_sub_epi32(sums, offsets), x_scale, scales + 2 * row);
    }
  }
  return (size_t)count * unit_bytes + 2 * of->rows;
}

static size_t add_fours_q8(float *y, const sparse_group *of) { return add_fours_codes(8, y, of); }
static size_t add_fours_q4(float *y, const sparse_group *of) { return add_fours_codes(4, y, of); }

/* 2:4 of bf16, units of 4 inputs: for 32 rows the positions of their first and of their second numbers, then these. */
static size_t add_fours_bf16(float *y, const sparse_group *of) {
  enum { block_bytes = 144 };
  const size_t blocks = of->rows / 32, unit_bytes = blocks * block_bytes;
  const uint8_t *data = of->weights + 8 * (size_t)of->group * unit_bytes;
  const uint8_t *units[8];
  floats x[8];
  int count = 0;
  for (int first = 0; first < of->valid; first += 4) {
    float four[4] = {0};
    int kept = 0;
    for (int i = 0; i < smaller(4, of->valid - first); i++) {
      if (!keeps(of->x[first + i], of->threshold)) continue;
      four[i] = of->x[first + i];
      kept++;
    }
    if (kept == 0) continue;
    x[count] = _mm512_broadcast_f32x4(_mm_loadu_ps(four));
    units[count++] = data + (size_t)(first / 4) * unit_bytes;
  }
  /* Four rows share a byte of positions; those of the low halves are rows 0 … 3 of 8. */
  const ints low_bytes = _mm512_setr_epi32(0x80808000, 0x80808000, 0x80808000, 0x80808000, 0x80808002, 0x80808002, 0x80808002, 0x80808002,
                                           0x80808004, 0x80808004, 0x80808004, 0x80808004, 0x80808006, 0x80808006, 0x80808006, 0x80808006);
  const ints high_bytes = _mm512_add_epi32(low_bytes, splat_int(1));
  const ints shifts = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6);
  for (size_t block = 0; block < blocks; block++) {
    floats low, high, first, second;
    to_halves(load_floats(y + 32 * block), load_floats(y + 32 * block + 16), &low, &high);
    for (int unit = 0; unit < count; unit++) {
      const uint8_t *at = units[unit] + block * block_bytes;
      prefetch(at + 576);
      prefetch(at + 640);
      UNROLL for (int n = 0; n < 2; n++) {
        long long eight;
        memcpy(&eight, at + 8 * n, 8);
        const ints positions = _mm512_set1_epi64(eight), w = load_bytes(at + 16 + 64 * n);
        const ints in_low = _mm512_srlv_epi32(_mm512_shuffle_epi8(positions, low_bytes), shifts);
        const ints in_high = _mm512_srlv_epi32(_mm512_shuffle_epi8(positions, high_bytes), shifts);
        low = multiply_add(low_halves(w), _mm512_permutevar_ps(x[unit], in_low), low);
        high = multiply_add(high_halves(w), _mm512_permutevar_ps(x[unit], in_high), high);
      }
    }
    from_halves(low, high, &first, &second);
    store_floats(y + 32 * block, first);
    store_floats(y + 32 * block + 16, second);
  }
  return (size_t)count * unit_bytes;
}

#endif
