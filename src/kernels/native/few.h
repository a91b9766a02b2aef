/* Tiles times a few tokens, as a draft is verified with and as several clients decode: the memory decides how long that takes, so the weights are
 * read as they lie, a group in a long run of rows after the other. Each tile of a group is unpacked and multiplied at once, and the sums of all
 * rows of the run stay in the scratch. Sums are added in the same order as by tiles of all groups: the bits are the same. */

/* With more the sums no longer stay in the first-level cache. */
enum { most_few_tokens = 16 };

/* How many tiles the sums of which fit the scratch beside a panel, but some work for each thread. */
static int few_tiles_at_once(const place *at, const rarefy_matmul *a, const panel_format *format) {
  const size_t tile_sums = (size_t)padded_tokens(a) * tile_rows * sizeof(float);
  return larger(1, smaller((int)((a->scratch_bytes - panel_bytes(format)) / tile_sums), all_tiles(a) / (4 * at->threads)));
}

static void multiply_few(const place *at, const rarefy_matmul *a, const panel_format *format, const rarefy_matrix_part *part, int start, int count) {
  uint8_t *panel = (uint8_t *)at_offset(at, a->scratch) + (size_t)at->thread * a->scratch_bytes;
  float *sums = (float *)(panel + panel_bytes(format));
  const size_t tile_sums = (size_t)padded_tokens(a) * tile_rows;
  const uint8_t *prepared = prepared_of(at, a, format, part);
  memset(sums, 0, count * tile_sums * sizeof(float));
  for (int g = 0; g < groups_of(a); g++)
    for (int n = 0; n < count; n++) {
      const tile rows = tile_at(at, a, format, part, start + n * tile_rows, 1);
      format->unpack(panel, &rows, g);
      multiply_panel(a, format->bits, panel, g, 1, prepared, sums + n * tile_sums);
    }
  write_tiles(at, a, part, start, count, sums);
}
