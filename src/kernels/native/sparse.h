/* Formats that leave zeros out (src/pack), of which every part of a stack is a matrix of its own: where what lies in them, how 32
 * rows of them are opened, and the inner loops of products of one row. */

/* A part. */
typedef struct {
  const uint8_t *weights;
  size_t rows;
  int cols, groups;
  /* The lookup table for bit masks, where instructions do not do it. */
  const uint8_t *spread_table;
} sparse_matrix;

/* One group of its inputs. */
typedef struct {
  const sparse_matrix *of;
  int group;
  /* Its inputs, of which `valid` are, and those of the next group; NULL behind the last. */
  const float *x;
  int valid;
  const active_inputs *now, *next;
  float threshold;
} sparse_group;

/* y[0, rows) += W · x over one group; returns the bytes of weights that were read. */
typedef size_t add_sparse_group(float *y, const sparse_group *group);

INLINE uint32_t word_at(const uint8_t *p) {
  uint32_t word;
  memcpy(&word, p, 4);
  return word;
}

/* The code of 0 of each format. */
INLINE int zero_code(int bits) { return bits == 16 ? 0 : bits == 8 ? 128 : 8; }

/* A bit mask: where each tile of 512 rows of each input begins, scales, then the runs of the inputs. */
enum { run_tile = 512 };
typedef struct {
  const uint8_t *table, *scales, *data;
  size_t tiles;
} mask_layout;

INLINE mask_layout mask_of(const sparse_matrix *of, int bits) {
  const size_t tiles = (of->rows + run_tile - 1) / run_tile;
  const uint8_t *scales = of->weights + 4 * ((size_t)of->cols * tiles + 1);
  return (mask_layout){of->weights, scales, scales + (bits == 16 ? 0 : 2 * of->rows * (size_t)of->groups), tiles};
}

/* Where the run of an input has its rows from a multiple of 512 on. */
INLINE const uint8_t *run_of(const mask_layout *mask, int input, size_t row) {
  return mask->data + word_at(mask->table + 4 * ((size_t)input * mask->tiles + row / run_tile));
}

INLINE size_t run_bytes(const mask_layout *mask, int input) {
  const uint8_t *entry = mask->table + 4 * ((size_t)input * mask->tiles);
  return word_at(entry + 4 * mask->tiles) - word_at(entry);
}

/* The bytes of 32 rows of a run. */
INLINE size_t block_bytes_of(int bits, uint32_t mask) {
  const size_t count = (size_t)__builtin_popcount(mask);
  return 4 + (bits == 16 ? 2 * count : bits == 8 ? count : (count + 1) / 2);
}

/* Fetches what the next group's runs begin with. */
INLINE void fetch_next_runs(const sparse_group *g, const mask_layout *mask, int line) {
  if (g->next == NULL) return;
  for (int n = 0; n < g->next->kept; n++) prefetch(run_of(mask, group_inputs * (g->group + 1) + g->next->column[n], 0) + 64 * line);
}

/* 32 rows of a run as bytes less the code of 0; moves on. */
INLINE bytes32 open_block(int bits, const uint8_t **at, const uint8_t *table) {
  const uint32_t mask = word_at(*at);
  bytes32 bytes;
  if (bits == 8) bytes = spread_bytes(mask, *at + 4, table);
  else {
    /* Two nibbles a byte, spread to a byte each; 0 stands for the code of 0 meanwhile. */
    const bytes32 codes = open_nibbles(*at + 4);
    bytes = spread_bytes(mask, &codes, table);
  }
  *at += block_bytes_of(bits, mask);
  return bytes;
}

/* A vector of such bytes of a run, of which `blocks` times 32 rows are there. */
INLINE ints open_rows(int bits, const uint8_t **at, int blocks, const uint8_t *table) {
  const bytes32 first = open_block(bits, at, table);
  return blocks > 1 ? joined(first, open_block(bits, at, table)) : widened(first);
}

/* Rows from `row` on of all kept inputs, four runs at a time: a vector of rows, or 32 of them. */
INLINE void add_mask_vector(int bits, int blocks, float *y, const sparse_matrix *of, const active_inputs *now, const uint8_t **at, const uint8_t *scales) {
  ints sums[4];
  UNROLL for (int m = 0; m < 4; m++) sums[m] = splat_int(-(bits == 8 ? q8_offset : 8) * now->sum);
  for (int f = 0; f < now->fours; f++) {
    ints v[4], o[4];
    UNROLL for (int i = 0; i < 4; i++) {
      prefetch(at[4 * f + i] + 256);
      v[i] = open_rows(bits, &at[4 * f + i], blocks, of->spread_table);
    }
    int x;
    memcpy(&x, now->code + 4 * f, 4);
    side_by_side(v[0], v[1], v[2], v[3], o);
    UNROLL for (int m = 0; m < 4; m++) {
      const ints w = xor_bits(o[m], splat_byte(zero_code(bits)));
      sums[m] = bits == 8 ? dot_q8(sums[m], w, splat_int(x)) : dot_q4(sums[m], w, splat_int(x));
    }
  }
  in_order(sums);
  UNROLL for (int m = 0; m < 4; m++)
    if (4 * lanes * m < 32 * blocks) add_scaled(y + 4 * lanes * m, sums[m], splat_float(now->scale), scales + 8 * lanes * m);
}

/* Sums of all inputs stay in registers, the places in the runs in memory. */
INLINE size_t add_mask_codes(int bits, float *y, const sparse_group *g) {
  const sparse_matrix *of = g->of;
  const mask_layout mask = mask_of(of, bits);
  const active_inputs *now = g->now;
  const uint8_t *at[group_inputs];
  size_t bytes = 2 * of->rows;
  for (int n = 0; n < 4 * now->fours; n++) at[n] = run_of(&mask, group_inputs * g->group + now->column[n], 0);
  for (int n = 0; n < now->kept; n++) bytes += run_bytes(&mask, group_inputs * g->group + now->column[n]);
  const uint8_t *scales = mask.scales + 2 * of->rows * (size_t)g->group;
  size_t row = 0;
  for (; row + 16 * lanes <= of->rows; row += 16 * lanes) {
    if (row + 5 * 64 >= of->rows) fetch_next_runs(g, &mask, (int)((of->rows - row) / 64));
    add_mask_vector(bits, lanes / 2, y + row, of, now, at, scales + 2 * row);
  }
  if (row < of->rows) add_mask_vector(bits, 1, y + row, of, now, at, scales + 2 * row);
  return bytes;
}

static size_t add_mask_q8(float *y, const sparse_group *g) { return add_mask_codes(8, y, g); }
static size_t add_mask_q4(float *y, const sparse_group *g) { return add_mask_codes(4, y, g); }

/* Blocks of 32 rows of bf16 runs that are worked on at once. */
enum { mask_blocks = lanes / 2 };

INLINE void add_mask_rows(int blocks, float *y, const uint8_t **at, const float *x, int count, const uint8_t *table) {
  enum { step = 8 * lanes };
  floats low[mask_blocks * mask_vectors], high[mask_blocks * mask_vectors];
  UNROLL for (int b = 0; b < blocks * mask_vectors; b++) to_mask_order(load_floats(y + step * b), load_floats(y + step * b + step / 2), &low[b], &high[b]);
  for (int n = 0; n < count; n++) {
    const floats v = splat_float(x[n]);
    const uint8_t *p = at[n];
    prefetch(p + 512);
    UNROLL for (int b = 0; b < blocks; b++) {
      const uint32_t mask = word_at(p);
      ints w[mask_vectors];
      spread_halves(mask, p + 4, table, w);
      UNROLL for (int k = 0; k < mask_vectors; k++) {
        const int s = b * mask_vectors + k;
        low[s] = multiply_add(low_halves(w[k]), v, low[s]);
        high[s] = multiply_add(high_halves(w[k]), v, high[s]);
      }
      p += block_bytes_of(16, mask);
    }
    at[n] = p;
  }
  UNROLL for (int b = 0; b < blocks * mask_vectors; b++) {
    floats first, second;
    from_mask_order(low[b], high[b], &first, &second);
    store_floats(y + step * b, first);
    store_floats(y + step * b + step / 2, second);
  }
}

static size_t add_mask_bf16(float *y, const sparse_group *g) {
  const sparse_matrix *of = g->of;
  const mask_layout mask = mask_of(of, 16);
  const uint8_t *at[group_inputs];
  float x[group_inputs];
  size_t bytes = 0;
  /* In the order of the WebAssembly kernels: passes of 8. */
  const int kept = g->now->kept, passes = (kept + 7) / 8;
  int count = 0;
  for (int p = 0; p < passes; p++)
    for (int n = p; n < kept; n += passes, count++) {
      const int input = g->now->column[n];
      at[count] = run_of(&mask, group_inputs * g->group + input, 0);
      x[count] = g->x[input];
      bytes += run_bytes(&mask, group_inputs * g->group + input);
    }
  size_t row = 0;
  for (; row + 32 * mask_blocks <= of->rows; row += 32 * mask_blocks) {
    if (row + 9 * 64 >= of->rows) fetch_next_runs(g, &mask, (int)((of->rows - row) / 64));
    add_mask_rows(mask_blocks, y + row, at, x, count, of->spread_table);
  }
  for (; row < of->rows; row += 32) add_mask_rows(1, y + row, at, x, count, of->spread_table);
  return bytes;
}

/* 2:4: scales of all groups, then units of inputs, each of blocks of 32 rows: positions and codes. Units of 8 inputs of codes with
 * scales, of 4 of bf16. */
INLINE size_t unit_inputs(int bits) { return bits == 16 ? 4 : 8; }
INLINE size_t fours_block_bytes(int bits) { return bits == 16 ? 144 : bits == 8 ? 160 : 96; }
INLINE size_t unit_bytes_of(const sparse_matrix *of, int bits) { return of->rows / 32 * fours_block_bytes(bits); }

INLINE const uint8_t *units_of(const sparse_matrix *of, int bits, int group) {
  const size_t scales = bits == 16 ? 0 : 2 * of->rows * (size_t)of->groups;
  return of->weights + scales + group_inputs / unit_inputs(bits) * (size_t)group * unit_bytes_of(of, bits);
}

/* Twice the number of its lane for every word of a vector, of the part-th vector that makes up 64 bytes. */
INLINE ints twice_lane(int part) {
  static const int32_t numbers[16] = {0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6};
  return load_bytes(numbers + 4 * lanes * part);
}

/* Vectors that make up 64 bytes: 16 rows of codes with scales, 32 of bf16. */
enum { fours_parts = 4 / lanes };

/* Of a block, codes of 4 rows a lane, four each, and their positions among their four inputs. Lanes keep theirs in two bits each
 * of the same bytes, and nibbles of the first and of the second 16 rows share bytes. */
INLINE void open_fours(int bits, const uint8_t *block, int half, int part, ints *codes, ints *positions) {
  *positions = and_bits(shift_right(repeat16(block + 16 * half), twice_lane(part)), splat_byte(3));
  const ints packed = load_bytes(block + 32 + 16 * lanes * part + (bits == 8 ? 64 * half : 0));
  *codes = bits == 8 ? packed : half == 0 ? low_nibbles(packed) : high_nibbles(packed);
}

/* The inputs are brought to the codes by their positions. */
INLINE size_t add_fours_codes(int bits, float *y, const sparse_group *g) {
  const sparse_matrix *of = g->of;
  const size_t block_bytes = fours_block_bytes(bits), unit_bytes = unit_bytes_of(of, bits);
  const uint8_t *scales = of->weights + 2 * of->rows * (size_t)g->group, *data = units_of(of, bits, g->group);
  float copy[group_inputs], scale;
  int8_t codes[group_inputs];
  int sum;
  round_group(completed(g->x, g->valid, copy), g->threshold, codes, &scale, &sum);
  const uint8_t *units[4];
  ints x[4];
  int count = 0;
  for (int unit = 0; unit < 4; unit++) {
    int kept = 0;
    for (int i = 8 * unit; i < smaller(g->valid, 8 * unit + 8); i++) kept += keeps(g->x[i], g->threshold);
    if (kept == 0) continue;
    x[count] = repeat8(codes + 8 * unit);
    units[count++] = data + (size_t)unit * unit_bytes;
  }
  const floats x_scale = splat_float(scale);
  /* Of every four codes two are of the first four inputs of a unit, two of the others. */
  const ints others = splat_int(0x04040000);
  /* What codes are greater by. */
  const int offset = bits == 8 ? q8_offset : 8;
  for (size_t block = 0; block < of->rows / 32; block++) {
    UNROLL for (int half = 0; half < 2; half++) {
      UNROLL for (int part = 0; part < fours_parts; part++) {
        ints sums = splat_int(0), offsets = splat_int(0);
        for (int unit = 0; unit < count; unit++) {
          const uint8_t *at = units[unit] + block * block_bytes;
          /* In a group units follow on each other, so that the next rows lie ahead of each. */
          if (part == 0) prefetch(at + 512 + 64 * half);
          ints w, positions;
          open_fours(bits, at, half, part, &w, &positions);
          const ints inputs = pick_bytes(x[unit], or_bits(positions, others));
          sums = bits == 8 ? dot_q8(sums, w, inputs) : dot_q4(sums, w, inputs);
          if (offset == 0) continue;
          offsets = bits == 8 ? dot_q8(offsets, splat_byte(offset), inputs) : dot_q4(offsets, splat_byte(offset), inputs);
        }
        const size_t row = 32 * block + 16 * (size_t)half + 4 * lanes * (size_t)part;
        add_scaled(y + row, subtract_ints(sums, offsets), x_scale, scales + 2 * row);
      }
    }
  }
  return (size_t)count * unit_bytes + 2 * of->rows;
}

static size_t add_fours_q8(float *y, const sparse_group *g) { return add_fours_codes(8, y, g); }
static size_t add_fours_q4(float *y, const sparse_group *g) { return add_fours_codes(4, y, g); }

/* Of a block of bf16, the n-th numbers of 8 rows a lane and their positions, in two bits each: those of the low halves, rows 0 … 3 of 8,
 * and of the high ones. Four rows share a byte of positions. */
INLINE ints open_halves(const uint8_t *block, int n, int part, ints *in_low, ints *in_high) {
  static const int32_t shifts[4] = {0, 2, 4, 6};
  const ints all = repeat8(block + 8 * n), low_bytes = or_bits(twice_lane(part), splat_int((int)0x80808000));
  *in_low = shift_right(pick_bytes(all, low_bytes), repeat16(shifts));
  *in_high = shift_right(pick_bytes(all, or_bits(low_bytes, splat_int(1))), repeat16(shifts));
  return load_bytes(block + 16 + 64 * n + 16 * lanes * part);
}

static size_t add_fours_bf16(float *y, const sparse_group *g) {
  const sparse_matrix *of = g->of;
  const size_t block_bytes = fours_block_bytes(16), unit_bytes = unit_bytes_of(of, 16);
  const uint8_t *data = units_of(of, 16, g->group);
  const uint8_t *units[8];
  floats x[8];
  int count = 0;
  for (int first = 0; first < g->valid; first += 4) {
    float four[4] = {0};
    int kept = 0;
    for (int i = 0; i < smaller(4, g->valid - first); i++) {
      if (!keeps(g->x[first + i], g->threshold)) continue;
      four[i] = g->x[first + i];
      kept++;
    }
    if (kept == 0) continue;
    x[count] = repeat_floats(four);
    units[count++] = data + (size_t)(first / 4) * unit_bytes;
  }
  enum { step = 8 * lanes };
  for (size_t block = 0; block < of->rows / 32; block++) {
    float *rows = y + 32 * block;
    floats low[fours_parts], high[fours_parts];
    UNROLL for (int p = 0; p < fours_parts; p++) to_halves(load_floats(rows + step * p), load_floats(rows + step * p + step / 2), &low[p], &high[p]);
    for (int unit = 0; unit < count; unit++) {
      const uint8_t *at = units[unit] + block * block_bytes;
      prefetch(at + 576);
      prefetch(at + 640);
      UNROLL for (int n = 0; n < 2; n++) {
        UNROLL for (int p = 0; p < fours_parts; p++) {
          ints in_low, in_high;
          const ints w = open_halves(at, n, p, &in_low, &in_high);
          low[p] = multiply_add(low_halves(w), pick_floats(x[unit], in_low), low[p]);
          high[p] = multiply_add(high_halves(w), pick_floats(x[unit], in_high), high[p]);
        }
      }
    }
    UNROLL for (int p = 0; p < fours_parts; p++) {
      floats first, second;
      from_halves(low[p], high[p], &first, &second);
      store_floats(rows + step * p, first);
      store_floats(rows + step * p + step / 2, second);
    }
  }
  return (size_t)count * unit_bytes;
}
