/* Panels of codes times many tokens in tile registers, in which one instruction multiplies 16 tokens with 16 rows and adds up a group of 32
 * inputs. Sums of products of codes are exact integers, and are scaled in the order of `multiply_codes`: the bits are the same. */
enum { unit = 16, fewest_tile_tokens = 8 };

/* Shapes of the tile registers, as the processor reads them. */
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_shapes;

static void shape_tiles(int tokens) {
  tile_shapes shapes = {.palette = 1};
  /* Registers 0 to 3 hold products, 4 and 5 tokens, 6 and 7 rows of the matrix. */
  for (int n = 0; n < 8; n++) {
    shapes.rows[n] = n < 6 ? (uint8_t)tokens : group_inputs / 4;
    shapes.row_bytes[n] = n < 4 || n >= 6 ? 4 * unit : group_inputs;
  }
  _tile_loadconfig(&shapes);
}

/* The codes of a panel less their offset, as signed bytes. */
static void centre_codes(uint8_t *panel, int bits, int groups) {
  const ints offset = splat_byte(bits == 8 ? q8_offset : 8);
  for (int g = 0; g < groups; g++, panel += code_panel + scale_panel)
    for (int at = 0; at < code_panel; at += 16 * lanes) store_bytes(panel + at, _mm512_sub_epi8(load_bytes(panel + at), offset));
}

/* total[tokens] += products, scaled. */
INLINE void add_products(int tokens, floats total[unit], const int32_t *products, const input_meta *of, const float *scales) {
  const floats scale = load_floats(scales);
  UNROLL for (int t = 0; t < tokens; t++)
    total[t] = multiply_add(multiply(to_floats(load_bytes(products + unit * t)), splat_float(of[t].scale)), scale, total[t]);
}

/* sums[tokens][tile_rows] += the groups of a panel of centred codes times up to 16 tokens. While one group is multiplied, the products of
 * the one two before it go to memory and those of the one before that are scaled, so that none waits for another. */
INLINE void multiply_unit(int tokens, const uint8_t *panel, int groups, const int8_t *codes, const input_meta *meta, int padded, float *sums) {
  _Alignas(64) int32_t products[4][unit * unit];
  const size_t panel_step = code_panel + scale_panel, code_step = (size_t)padded * group_inputs;
  const int steps = groups * (tile_rows / unit);
  /* Rows and group of what is multiplied and of what is scaled. */
  struct {
    int row, group;
  } first = {0, 0}, third = {0, 0};
  floats total[unit];
/* Registers have no names but numbers, which compilers write into the code. */
#define STEP(n, of_first, inputs, weights, of_second, of_third)                                                             \
  do {                                                                                                                      \
    if (step + (n) < steps) {                                                                                               \
      _tile_zero(of_first);                                                                                                 \
      _tile_loadd(inputs, codes + first.group * code_step, group_inputs);                                                   \
      _tile_loadd(weights, panel + first.group * panel_step + 4 * first.row, 4 * tile_rows);                                \
      _tile_dpbssd(of_first, inputs, weights);                                                                              \
      if (++first.group == groups) first.group = 0, first.row += unit;                                                      \
    }                                                                                                                       \
    if (step + (n) >= 2 && step + (n) < steps + 2) _tile_stored(of_second, products[of_second], 4 * unit);                  \
    if (step + (n) >= 3 && step + (n) < steps + 3) {                                                                        \
      float *out = sums + third.row;                                                                                        \
      if (third.group == 0) UNROLL for (int t = 0; t < tokens; t++) total[t] = load_floats(out + tile_rows * t);            \
      add_products(tokens, total, products[of_third], meta + (size_t)third.group * padded,                                  \
                   (const float *)(panel + third.group * panel_step + code_panel) + third.row);                             \
      if (++third.group == groups) {                                                                                        \
        UNROLL for (int t = 0; t < tokens; t++) store_floats(out + tile_rows * t, total[t]);                                \
        third.group = 0, third.row += unit;                                                                                 \
      }                                                                                                                     \
    }                                                                                                                       \
  } while (0)
  for (int step = 0; step < steps + 3; step += 4) {
    STEP(0, 0, 4, 6, 2, 1);
    STEP(1, 1, 5, 7, 3, 2);
    STEP(2, 2, 4, 6, 0, 3);
    STEP(3, 3, 5, 7, 1, 0);
  }
#undef STEP
}

/* A panel of codes times `padded` tokens, a multiple of four. The panel is changed. */
static void multiply_in_tiles(int bits, uint8_t *panel, int groups, const int8_t *codes, const input_meta *meta, int padded, float *sums) {
  centre_codes(panel, bits, groups);
  int t = 0;
#define MULTIPLY(n)                                                                                                \
  if (t + (n) <= padded) {                                                                                         \
    shape_tiles(n);                                                                                                \
    for (; t + (n) <= padded; t += (n))                                                                            \
      multiply_unit(n, panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t);           \
  }
  MULTIPLY(16)
  MULTIPLY(8)
  MULTIPLY(4)
#undef MULTIPLY
  _tile_release();
}
