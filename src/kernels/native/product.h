/* C = alpha · A · B (+ base) in f32, in training: what wasm/assembly/training/product.ts does, in its order. A product and a sum are always
 * rounded once: these are the bits of the WebAssembly kernels where those have relaxed SIMD. */

/* A record as that file's class `Product` has it; addresses are bytes, all from a_stride to c_head is in fours. */
typedef struct {
  uint32_t variant, scratch, grid_x, grid_y, grid_z;
  uint32_t rows, columns, depth;
  uint32_t a_stride, b_stride, c_stride, a_offset, b_offset, c_offset, a_batch, b_batch, c_batch, a_head, b_head, c_head;
  uint32_t heads, b_group, causal, accumulate;
  float alpha;
  uint32_t run_count, c, a, b, base, runs;
} product_record;

enum { layout_nt = 0, layout_tn = 2, of_runs = 4 };
enum { causal_result = 1, causal_left = 2, causal_left_transposed = 3, causal_rows = 64 };
enum { least_piece = 192 };
/* Of C, what a register tile has: as many sums as leave room for what is multiplied. */
enum { vector_floats = 4 * lanes, product_tile_rows = lanes == 4 ? 12 : 6, product_tile_columns = 2 * vector_floats };

INLINE floats fused(floats a, floats b, floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return (floats){vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
#endif
}

/* Panels [width] of a factor whose rows lie along the depth: [k][width] each, what is missing of the last filled up with 0. */
static void pack_across(float *to, const float *from, size_t stride, int extent, int depth, int width) {
  for (int i = 0; i < extent; i += width) {
    const int rows = smaller(width, extent - i);
    float *panel = to + (size_t)i * (size_t)depth;
    if (rows < width) memset(panel, 0, sizeof(float) * (size_t)width * (size_t)depth);
    int r = 0;
#ifdef __SSE2__
    for (; r + 4 <= rows; r += 4) {
      const float *x = from + (size_t)(i + r) * stride;
      for (int k = 0; k < depth; k += 4, x += 4) {
        __m128 v0 = _mm_loadu_ps(x), v1 = _mm_loadu_ps(x + stride), v2 = _mm_loadu_ps(x + 2 * stride), v3 = _mm_loadu_ps(x + 3 * stride);
        _MM_TRANSPOSE4_PS(v0, v1, v2, v3);
        float *y = panel + k * width + r;
        _mm_storeu_ps(y, v0);
        _mm_storeu_ps(y + width, v1);
        _mm_storeu_ps(y + 2 * width, v2);
        _mm_storeu_ps(y + 3 * width, v3);
      }
    }
#endif
    for (; r < rows; r++) {
      const float *x = from + (size_t)(i + r) * stride;
      for (int k = 0; k < depth; k++) panel[k * width + r] = x[k];
    }
  }
}

/* The same for a factor whose rows lie across the depth. */
static void pack_along(float *to, const float *from, size_t stride, int extent, int depth, int width) {
  for (int i = 0; i < extent; i += width) {
    const int columns = smaller(width, extent - i);
    float *y = to + (size_t)i * (size_t)depth;
    if (columns < width) memset(y, 0, sizeof(float) * (size_t)width * (size_t)depth);
    const float *x = from + i;
    for (int k = 0; k < depth; k++, x += stride, y += width) memcpy(y, x, sizeof(float) * (size_t)columns);
  }
}

/* A tile of C: panels with each other, in registers. addend: NULL, or what is added, which lies as C does. */
static void product_tile(int depth, const float *a, const float *b, float *c, const float *addend, size_t stride, float alpha, int rows,
                         int columns) {
  floats sums[product_tile_rows][2];
  UNROLL for (int r = 0; r < product_tile_rows; r++) sums[r][0] = sums[r][1] = splat_float(0);
  for (int k = 0; k < depth; k++) {
    const floats x = load_floats(b), y = load_floats(b + vector_floats);
    UNROLL for (int r = 0; r < product_tile_rows; r++) {
      const floats w = splat_float(a[r]);
      sums[r][0] = fused(w, x, sums[r][0]);
      sums[r][1] = fused(w, y, sums[r][1]);
    }
    a += product_tile_rows;
    b += product_tile_columns;
  }
  const floats times = splat_float(alpha);
  UNROLL for (int r = 0; r < product_tile_rows; r++) {
    sums[r][0] = multiply(times, sums[r][0]);
    sums[r][1] = multiply(times, sums[r][1]);
  }
  if (rows == product_tile_rows && columns == product_tile_columns) {
    UNROLL for (int r = 0; r < product_tile_rows; r++) {
      float *row = c + (size_t)r * stride;
      if (addend != NULL) {
        const float *more = addend + (size_t)r * stride;
        sums[r][0] = add_floats(sums[r][0], load_floats(more));
        sums[r][1] = add_floats(sums[r][1], load_floats(more + vector_floats));
      }
      store_floats(row, sums[r][0]);
      store_floats(row + vector_floats, sums[r][1]);
    }
    return;
  }
  float whole[product_tile_rows][product_tile_columns];
  UNROLL for (int r = 0; r < product_tile_rows; r++) {
    store_floats(whole[r], sums[r][0]);
    store_floats(whole[r] + vector_floats, sums[r][1]);
  }
  for (int r = 0; r < rows; r++)
    for (int n = 0; n < columns; n++) {
      const size_t at = (size_t)r * stride + (size_t)n;
      c[at] = addend == NULL ? whole[r][n] : whole[r][n] + addend[at];
    }
}

/* Rows [m0, m1) and columns [n0, n1) of one matrix C. */
static void multiply_piece(const product_record *p, const float *a, const float *b, float *c, const float *base, int depth, int m0, int m1,
                           int n0, int n1, float *scratch) {
  const size_t a_stride = 4 * (size_t)p->a_stride, b_stride = 4 * (size_t)p->b_stride, c_stride = 4 * (size_t)p->c_stride;
  const int layout = p->variant & 3, step = p->causal == 0 ? rarefy_product_rows : causal_rows;
  float *left = scratch, *right = scratch + rarefy_product_rows * rarefy_product_depth;
  for (int n = n0; n < n1; n += rarefy_product_columns) {
    const int n_end = smaller(n + rarefy_product_columns, n1);
    /* Once also for no depth at all: sums of nothing are 0. */
    for (int k = 0; k == 0 || k < depth; k += rarefy_product_depth) {
      const int k_end = smaller(k + rarefy_product_depth, depth);
      if (layout == layout_nt) pack_across(right, b + (size_t)n * b_stride + k, b_stride, n_end - n, k_end - k, product_tile_columns);
      else pack_along(right, b + (size_t)k * b_stride + n, b_stride, n_end - n, k_end - k, product_tile_columns);
      for (int m = m0; m < m1; m += step) {
        const int m_end = smaller(m + step, m1);
        int from = k, to = k_end, begins = k == 0, columns_end = n_end;
        if (p->causal == causal_result) columns_end = smaller(n_end, m + causal_rows);
        else if (p->causal == causal_left) to = smaller(to, m + causal_rows);
        else if (p->causal == causal_left_transposed) {
          from = larger(from, m);
          begins = k <= m && m < k + rarefy_product_depth;
        }
        if ((from >= to && !begins) || columns_end <= n) continue;
        const int count = larger(0, to - from);
        if (layout == layout_tn) pack_along(left, a + (size_t)from * a_stride + m, a_stride, m_end - m, count, product_tile_rows);
        else pack_across(left, a + (size_t)m * a_stride + from, a_stride, m_end - m, count, product_tile_rows);
        const float *addend = begins ? base : c;
        for (int j = n; j < columns_end; j += product_tile_columns) {
          const float *panel = right + (size_t)(j - n) * (size_t)(k_end - k) + (size_t)(from - k) * product_tile_columns;
          for (int i = m; i < m_end; i += product_tile_rows) {
            const size_t at = (size_t)i * c_stride + (size_t)j;
            product_tile(count, left + (size_t)(i - m) * (size_t)count, panel, c + at, addend == NULL ? NULL : addend + at, c_stride, p->alpha,
                         smaller(m_end - i, product_tile_rows), smaller(columns_end - j, product_tile_columns));
          }
        }
      }
    }
  }
}

INLINE int pieces_of(int extent, int wanted) { return larger(1, smaller(wanted, extent / least_piece)); }

/* Where piece n of an extent begins: at a multiple of 64, so that causal parts are whole. */
INLINE int piece_start(int extent, int n, int count) {
  return n == count ? extent : (int)((unsigned)extent * (unsigned)n / (unsigned)count) & ~63;
}

static int product(const place *at, const void *record) {
  const product_record *p = record;
  const int by_runs = (p->variant & of_runs) != 0, sums_runs = by_runs && (p->variant & 3) == layout_tn;
  const int matrices = (int)(by_runs ? p->run_count : p->grid_z);
  /* A thread has two pieces, so that none waits long for another; one has all. */
  const int wanted = at->threads == 1 || by_runs ? 1 : (2 * at->threads + matrices - 1) / matrices;
  const int across_rows = pieces_of((int)p->rows, wanted);
  const int across_columns = pieces_of((int)p->columns, (wanted + across_rows - 1) / across_rows);
  const int each = across_rows * across_columns;
  float *scratch = at_offset(at, p->scratch + (uint32_t)at->thread * rarefy_product_scratch_bytes);
  const uint32_t *runs = at_offset(at, p->runs);
  for (int item = take_work(at); item < matrices * each; item = take_work(at)) {
    const int matrix = item / each, piece = item % each;
    const size_t batch = by_runs ? 0 : (size_t)matrix / p->heads, head = by_runs ? 0 : (size_t)matrix % p->heads;
    const float *a = (const float *)at_offset(at, p->a) + 4 * (p->a_offset + batch * p->a_batch + head * p->a_head);
    const float *b = (const float *)at_offset(at, p->b) + 4 * (p->b_offset + batch * p->b_batch + head / p->b_group * p->b_head);
    size_t to = 4 * (p->c_offset + batch * p->c_batch + head * p->c_head);
    int rows = (int)p->rows, depth = (int)p->depth;
    if (by_runs) {
      const size_t first = runs[matrix];
      const int count = (int)(runs[p->run_count + 1 + (uint32_t)matrix] + 3) & ~3;
      a += 4 * first * p->a_stride;
      if (sums_runs) {
        depth = count;
        b += 4 * first * p->b_stride;
        to += 4 * (size_t)matrix * p->c_batch;
      } else {
        rows = count;
        b += 4 * (size_t)matrix * p->b_batch;
        to += 4 * first * p->c_stride;
      }
    }
    const float *base = p->accumulate ? (const float *)at_offset(at, p->base) + to : NULL;
    multiply_piece(p, a, b, (float *)at_offset(at, p->c) + to, base, depth, piece_start(rows, piece / across_columns, across_rows),
                   piece_start(rows, piece / across_columns + 1, across_rows), piece_start((int)p->columns, piece % across_columns, across_columns),
                   piece_start((int)p->columns, piece % across_columns + 1, across_columns), scratch);
  }
  return 1;
}
