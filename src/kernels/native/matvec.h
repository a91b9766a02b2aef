/* out = W · x for one x: all slices of the inputs that come free, each into sums of its own, as
 * wasm/assembly/matvec.ts does, which adds them. */

typedef struct {
  size_t column_bytes, scale_bytes;
  void (*list)(active_inputs *, const float *, int, float);
  add_group *add;
  /* Instead, of the formats that leave zeros out. */
  add_sparse_group *add_sparse;
} product_format;

INLINE int format_code(int structure, int dense) { return structure << rarefy_structure_shift | dense; }

static int product_format_of(int code, size_t rows, product_format *format) {
  static const struct {
    int structure, dense;
    product_format as;
  } formats[] = {
      /* Bytes of a column and of the scales for every row, in halves, to be multiplied with the rows below. */
      {rarefy_structure_dense, rarefy_format_q8, {2, 4, list_rounded, add_group_q8, NULL}},
      {rarefy_structure_dense, rarefy_format_q4, {1, 4, list_rounded, add_group_q4, NULL}},
      {rarefy_structure_dense, rarefy_format_bf16, {4, 0, list_values, add_group_bf16, NULL}},
      {rarefy_structure_bitmask, rarefy_format_q8, {0, 0, list_rounded, NULL, add_mask_q8}},
      {rarefy_structure_bitmask, rarefy_format_q4, {0, 0, list_rounded, NULL, add_mask_q4}},
      {rarefy_structure_bitmask, rarefy_format_bf16, {0, 0, select_inputs, NULL, add_mask_bf16}},
      {rarefy_structure_two_of_four, rarefy_format_q8, {0, 0, select_inputs, NULL, add_fours_q8}},
      {rarefy_structure_two_of_four, rarefy_format_q4, {0, 0, select_inputs, NULL, add_fours_q4}},
      {rarefy_structure_two_of_four, rarefy_format_bf16, {0, 0, select_inputs, NULL, add_fours_bf16}},
  };
  for (size_t n = 0; n < sizeof formats / sizeof *formats; n++) {
    if (code != format_code(formats[n].structure, formats[n].dense)) continue;
    *format = formats[n].as;
    format->column_bytes = format->column_bytes * rows / 2;
    format->scale_bytes = format->scale_bytes * rows / 2;
    return 1;
  }
  return 0;
}

/* Of a segment, groups [first, last) and those of the rows [run_from, run_to) that are its own. */
static void add_segment(const place *at, const rarefy_matvec *a, const rarefy_segment *segment, const product_format *format, float *y, int first, int last,
                        int run_from, int run_to) {
  const size_t rows = a->padded_rows, group_bytes = format->scale_bytes + group_inputs * format->column_bytes;
  const uint8_t *weights = at_offset(at, format->add_sparse == NULL ? a->weights : segment->weights);
  const float *x = at_offset(at, a->x);
  const int from = larger((int)segment->first_row, run_from), to = smaller((int)segment->end_row, run_to);
  if (from >= to) return;
  const double share = (double)(to - from) / (double)rows;
  const sparse_matrix part = {weights, (size_t)(to - from), a->cols, (a->cols + group_inputs - 1) / group_inputs, at_offset(at, rarefy_spread_table)};
  double bytes = 0, offered = 0, skipped = 0;
  /* The list of the next group is made early, because its columns are fetched early. */
  active_inputs lists[2];
  for (int g = first; g <= last; g++) {
    if (g < last) format->list(&lists[g & 1], x + group_inputs * g, smaller(a->cols - group_inputs * g, group_inputs), segment->threshold);
    if (g == first) continue;
    const int group = g - 1, valid = smaller(a->cols - group_inputs * group, group_inputs);
    const active_inputs *now = &lists[group & 1], *next = g < last ? &lists[g & 1] : NULL;
    offered += valid;
    skipped += valid - now->kept;
    if (now->kept == 0) continue;
    if (format->add_sparse != NULL) {
      const sparse_group of = {&part, group, x + group_inputs * group, valid, now, next, segment->threshold};
      bytes += (double)format->add_sparse(y + from, &of);
    } else {
      bytes += share * (double)(now->kept * format->column_bytes + format->scale_bytes);
      format->add(y, weights + (size_t)group * group_bytes, rows, now, next, from, to);
    }
  }
  if (!segment->counts) return;
  /* Inputs are counted once for all runs of rows. */
  const int parts = from == (int)segment->first_row ? segment->parts : 0;
  add_counts(at, bytes, offered * parts, skipped * parts);
}

static int matvec(const place *at, const void *record) {
  const rarefy_matvec *a = record;
  const rarefy_segment *segments = rarefy_matvec_segments(a);
  product_format format;
  if (!product_format_of(a->format, a->padded_rows, &format)) return 0;
  const int groups = (a->cols + group_inputs - 1) / group_inputs;
  for (int item = take_work(at); item < a->slices * a->row_runs; item = take_work(at)) {
    const int slice = item / a->row_runs, run = item % a->row_runs, blocks = (int)a->padded_rows / 32;
    float *y = (float *)at_offset(at, a->sums) + (size_t)slice * a->padded_rows;
    const int from = blocks * run / a->row_runs * 32, to = blocks * (run + 1) / a->row_runs * 32;
    memset(y + from, 0, (size_t)(to - from) * sizeof(float));
    const int first = groups * slice / a->slices, last = groups * (slice + 1) / a->slices;
    for (int s = 0; s < a->segments_length; s++) add_segment(at, a, segments + s, &format, y, first, last, from, to);
  }
  return 1;
}
