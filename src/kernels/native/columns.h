/* The inner loops of matrix-vector products: y[from, to) += Σ x_c · W[:, c] over the kept inputs c of one group, rows in
 * multiples of 32. Rows go a chunk of registers at a time through all kept columns; the same rows of the columns ahead are
 * fetched meanwhile: a chunk or two further down, and at the end of the rows the first chunks of the next group. */

typedef void add_group(float *y, const uint8_t *group, size_t rows, const active_inputs *now, const active_inputs *next, int from, int to);

/* Four columns side by side: o[m] holds in each lane rows 4m … 4m + 3 of the lane's 16, four bytes each. */
INLINE void side_by_side(ints a, ints b, ints c, ints d, ints o[4]) {
  const ints ab = low8(a, b), cd = low8(c, d), far_ab = high8(a, b), far_cd = high8(c, d);
  o[0] = low16(ab, cd);
  o[1] = high16(ab, cd);
  o[2] = low16(far_ab, far_cd);
  o[3] = high16(far_ab, far_cd);
}

/* y[0, 4 · lanes) += sums · x_scale · scales */
INLINE void add_scaled(float *y, ints sums, floats x_scale, const uint8_t *scales) {
  store_floats(y, multiply_add(multiply(to_floats(sums), x_scale), load_scales(scales), load_floats(y)));
}

/* What is to be fetched while rows [row, row + chunk) of a group are worked on: rows `ahead` further down in its own kept columns
 * or, at the end of the rows, in those of the next group. */
typedef struct {
  const uint8_t *rows;
  const active_inputs *inputs;
} fetch_plan;

INLINE fetch_plan plan_fetches(const uint8_t *group, size_t group_bytes, int bits, size_t rows, const active_inputs *now,
                               const active_inputs *next, int ahead, int from, int to) {
  const int in_this = ahead < to;
  const int row = in_this ? ahead : from + ahead - to;
  const size_t scales = bits == 16 ? 0 : 2 * rows;
  return (fetch_plan){(in_this ? group : group + group_bytes) + scales + (size_t)row * (size_t)bits / 8, in_this ? now : next};
}

INLINE void fetch(const uint8_t *p, int bytes) {
  UNROLL for (int line = 0; line < bytes; line += 64) prefetch(p + line);
}

/* Rows of a column that a vector holds: 16 bytes of a lane are 16 rows or, of nibbles, 32. */
INLINE int rows_of_vector(int bits) { return lanes * 128 / bits; }

/* `blocks` vectors of rows from `row` on, or fewer: the first `whole` lanes of one. */
INLINE void add_codes(int bits, int blocks, int whole, float *y, const uint8_t *group, size_t rows, const active_inputs *now,
                      const active_inputs *next, int row, int from, int to) {
  const int sums_of_block = bits == 8 ? 4 : 8, block_rows = rows_of_vector(bits);
  const size_t column = rows * (size_t)bits / 8;
  const uint8_t *codes = group + 2 * rows + (size_t)row * (size_t)bits / 8;
  ints sums[16];
  const int start = start_of(bits, now->sum);
  UNROLL for (int n = 0; n < blocks * sums_of_block; n++) sums[n] = splat_int(bits == 4 && n % 8 >= 4 ? start_of_high(start) : start);
  const fetch_plan plan = plan_fetches(group, 2 * rows + group_inputs * column, bits, rows, now, next, row + 2 * blocks * block_rows, from, to);
  const int fetches = plan.inputs == NULL ? 0 : plan.inputs->fours;
  for (int f = 0; f < now->fours; f++) {
    int x;
    memcpy(&x, now->code + 4 * f, 4);
    const ints inputs = splat_int(x);
    const uint8_t *at[4];
    UNROLL for (int i = 0; i < 4; i++) at[i] = codes + now->column[4 * f + i] * column;
    if (f < fetches) {
      UNROLL for (int i = 0; i < 4; i++) fetch(plan.rows + plan.inputs->column[4 * f + i] * column, 16 * lanes * blocks);
    }
    UNROLL for (int b = 0; b < blocks; b++) {
      ints v[4], o[4];
      UNROLL for (int i = 0; i < 4; i++) v[i] = whole == lanes ? load_bytes(at[i] + 16 * lanes * b) : load_lanes(at[i], whole);
      side_by_side(v[0], v[1], v[2], v[3], o);
      UNROLL for (int m = 0; m < 4; m++) {
        if (bits == 8) sums[4 * b + m] = add_dots(8, sums[4 * b + m], o[m], inputs);
        else {
          sums[8 * b + m] = add_dots(4, sums[8 * b + m], low_nibbles(o[m]), inputs);
          sums[8 * b + 4 + m] = add_high(sums[8 * b + 4 + m], o[m], inputs);
        }
      }
    }
  }
  UNROLL for (int n = 0; n < blocks * sums_of_block; n++) sums[n] = end_sums(bits, sums[n]);
  const floats x_scale = splat_float(now->scale);
  UNROLL for (int b = 0; b < blocks; b++) {
    ints *own = sums + b * sums_of_block;
    if (bits == 4) {
      UNROLL for (int m = 0; m < 4; m++) own[4 + m] = end_high(own[4 + m], own[m]);
      in_order(own + 4);
    }
    in_order(own);
    UNROLL for (int m = 0; m < 4; m++) {
      /* Low nibbles are the first and high ones the last 16 of runs of 32 rows. */
      const int n = 4 * lanes * m;
      if (whole < lanes && n >= 16 * whole) continue;
      const int first = row + b * block_rows + (bits == 8 ? n : n / 16 * 32 + n % 16);
      add_scaled(y + first, own[m], x_scale, group + 2 * first);
      if (bits == 4) add_scaled(y + first + 16, own[4 + m], x_scale, group + 2 * (first + 16));
    }
  }
}

INLINE void add_group_of_codes(int bits, int blocks, float *y, const uint8_t *group, size_t rows, const active_inputs *now,
                               const active_inputs *next, int from, int to) {
  const int step = rows_of_vector(bits);
  int row = from;
  for (; row + blocks * step <= to; row += blocks * step) add_codes(bits, blocks, lanes, y, group, rows, now, next, row, from, to);
  for (; row + step <= to; row += step) add_codes(bits, 1, lanes, y, group, rows, now, next, row, from, to);
  if (row < to) add_codes(bits, 1, (to - row) * bits / 128, y, group, rows, now, NULL, row, from, to);
}

static void add_group_q8(float *y, const uint8_t *group, size_t rows, const active_inputs *now, const active_inputs *next, int from, int to) {
  add_group_of_codes(8, q8_blocks, y, group, rows, now, next, from, to);
}

static void add_group_q4(float *y, const uint8_t *group, size_t rows, const active_inputs *now, const active_inputs *next, int from, int to) {
  add_group_of_codes(4, q4_blocks, y, group, rows, now, next, from, to);
}

/* `blocks` vectors of bf16 rows. */
INLINE void add_halves(int blocks, float *y, const uint8_t *group, size_t rows, const active_inputs *now, const active_inputs *next,
                       int row, int from, int to) {
  const int step = rows_of_vector(16);
  const size_t column = 2 * rows;
  const uint8_t *weights = group + 2 * (size_t)row;
  floats low[bf16_blocks], high[bf16_blocks];
  UNROLL for (int b = 0; b < blocks; b++) {
    const float *at = y + row + step * b;
    to_halves(load_floats(at), load_floats(at + step / 2), &low[b], &high[b]);
  }
  const fetch_plan plan = plan_fetches(group, group_inputs * column, 16, rows, now, next, row + blocks * step, from, to);
  const int fetches = plan.inputs == NULL ? 0 : plan.inputs->kept;
  for (int c = 0; c < now->kept; c++) {
    const uint8_t *at = weights + now->column[c] * column;
    const floats x = splat_float(now->value[c]);
    if (c < fetches) fetch(plan.rows + plan.inputs->column[c] * column, 16 * lanes * blocks);
    UNROLL for (int b = 0; b < blocks; b++) {
      const ints v = load_bytes(at + 16 * lanes * b);
      low[b] = multiply_add(low_halves(v), x, low[b]);
      high[b] = multiply_add(high_halves(v), x, high[b]);
    }
  }
  UNROLL for (int b = 0; b < blocks; b++) {
    floats first, second;
    from_halves(low[b], high[b], &first, &second);
    store_floats(y + row + step * b, first);
    store_floats(y + row + step * b + step / 2, second);
  }
}

static void add_group_bf16(float *y, const uint8_t *group, size_t rows, const active_inputs *now, const active_inputs *next, int from, int to) {
  const int step = rows_of_vector(16);
  int row = from;
  for (; row + bf16_blocks * step <= to; row += bf16_blocks * step) add_halves(bf16_blocks, y, group, rows, now, next, row, from, to);
  for (; row < to; row += step) add_halves(1, y, group, rows, now, next, row, from, to);
}
