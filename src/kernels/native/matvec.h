/* out = W · x for one x over the dense formats: all slices of the inputs that come free, each into sums of its own, as
 * wasm/assembly/matvec.ts does, which adds them. */

typedef struct {
  size_t column_bytes, scale_bytes;
  void (*list)(active_inputs *, const float *, int, float);
  add_group *add;
} dense_format;

INLINE int dense_format_of(int code, size_t rows, dense_format *format) {
  switch (code) {
    case rarefy_format_q8: *format = (dense_format){rows, 2 * rows, list_rounded, add_group_q8}; return 1;
    case rarefy_format_q4: *format = (dense_format){rows / 2, 2 * rows, list_rounded, add_group_q4}; return 1;
    case rarefy_format_bf16: *format = (dense_format){2 * rows, 0, list_values, add_group_bf16}; return 1;
    default: return 0;
  }
}

/* Groups [first, last) of one segment. */
static void add_segment(const place *at, const rarefy_matvec *a, const rarefy_segment *segment, const dense_format *format, float *y, int first, int last) {
  const size_t rows = a->padded_rows, group_bytes = format->scale_bytes + group_inputs * format->column_bytes;
  const uint8_t *weights = at_offset(at, a->weights);
  const float *x = at_offset(at, a->x);
  const int from = (int)segment->first_row, to = (int)segment->end_row;
  const double share = (double)(to - from) / (double)rows;
  double bytes = 0, offered = 0, skipped = 0;
  /* The list of the next group is made early, because its columns are fetched early. */
  active_inputs lists[2];
  for (int g = first; g <= last; g++) {
    if (g < last) format->list(&lists[g & 1], x + group_inputs * g, smaller(a->cols - group_inputs * g, group_inputs), segment->threshold);
    if (g == first) continue;
    const active_inputs *now = &lists[(g - 1) & 1];
    const int valid = smaller(a->cols - group_inputs * (g - 1), group_inputs);
    offered += valid;
    skipped += valid - now->kept;
    if (now->kept == 0) continue;
    bytes += share * (double)(now->kept * format->column_bytes + format->scale_bytes);
    format->add(y, weights + (size_t)(g - 1) * group_bytes, rows, now, g < last ? &lists[g & 1] : NULL, from, to);
  }
  if (segment->counts) add_counts(at, bytes, offered * segment->parts, skipped * segment->parts);
}

static int matvec(const place *at, const void *record) {
  const rarefy_matvec *a = record;
  const rarefy_segment *segments = rarefy_matvec_segments(a);
  dense_format format;
  if (!dense_format_of(a->format, a->padded_rows, &format)) return 0;
  const int groups = (a->cols + group_inputs - 1) / group_inputs;
  for (int slice = take_work(at); slice < a->slices; slice = take_work(at)) {
    float *y = (float *)at_offset(at, a->sums) + (size_t)slice * a->padded_rows;
    memset(y, 0, a->padded_rows * sizeof(float));
    const int first = groups * slice / a->slices, last = groups * (slice + 1) / a->slices;
    for (int s = 0; s < a->segments_length; s++) add_segment(at, a, segments + s, &format, y, first, last);
  }
  return 1;
}
