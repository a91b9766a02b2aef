/* Tiles of 64 rows of a few groups, unpacked for products of many rows: of codes with scales their bytes in the order of `side_by_side` for
 * every four inputs, and their scales in order; of bf16 f32 for every input. A panel stays in the first-level cache while all tokens pass. */
enum { tile_rows = 64, tile_vectors = tile_rows / (4 * lanes), code_panel = tile_rows * group_inputs, scale_panel = 4 * tile_rows };

#include "words.h"

/* Bytes of a group's codes, behind which its scales lie. */
INLINE size_t code_bytes(int bits) { return are_words(bits) ? 2 * code_panel : code_panel; }

/* Of the codes of a token's group: their scale, and what sums of products with them start with. */
typedef struct {
  float scale;
  int32_t start;
} input_meta;

/* Rows of a part, a multiple of 32 with its padding: `count` from `row` on. */
typedef struct {
  sparse_matrix of;
  size_t row;
  int count;
  /* How many groups further on what will be needed later is fetched. */
  int ahead;
} tile;

typedef void unpack_group(uint8_t *panel, const tile *t, int group);

INLINE void unpack_scales(int bits, uint8_t *panel, const uint8_t *scales, int count) {
  for (int n = 0; n < count; n += 4 * lanes) store_floats((float *)(panel + code_bytes(bits)) + n, load_scales(scales + 2 * n));
}

/* Rows from `first` on of four inputs, as `side_by_side` gives them. */
INLINE void store_fours(int bits, uint8_t *panel, int four, int first, ints o[4]) {
  in_order(o);
  for (int m = 0; m < 4; m++) store_codes(bits, panel, four, first + 4 * lanes * m, o[m]);
}

INLINE void unpack_codes(int bits, uint8_t *panel, const tile *t, int g) {
  const size_t rows = t->of.rows, column = rows * (size_t)bits / 8, group_bytes = 2 * rows + group_inputs * column;
  const uint8_t *group = t->of.weights + (size_t)g * group_bytes;
  const uint8_t *codes = group + 2 * rows + t->row * (size_t)bits / 8;
  /* Rows of a vector. */
  const int step = bits == 8 ? 16 * lanes : 32 * lanes;
  for (int f = 0; f < group_inputs / 4; f++)
    for (int first = 0; first < tile_rows; first += step) {
      const int whole = smaller((t->count - first) * bits / 128, smaller(lanes, (tile_rows - first) * bits / 128));
      if (whole <= 0) continue;
      ints v[4], o[4];
      for (int i = 0; i < 4; i++) {
        const uint8_t *at = codes + (size_t)(4 * f + i) * column + first * bits / 8;
        v[i] = whole == lanes ? load_bytes(at) : load_lanes(at, whole);
        prefetch_later(at + (size_t)t->ahead * group_bytes);
      }
      side_by_side(v[0], v[1], v[2], v[3], o);
      /* Word m of lane k are rows 16 k + 4 m …, of nibbles 32 k + 4 m … and 16 more. */
      if (bits == 8) store_fours(bits, panel, f, first, o);
      else {
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
          store_codes(bits, panel, f, to, o[m]);
          store_codes(bits, panel, f, to + 16, high[m]);
        }
      }
    }
  unpack_scales(bits, panel, group + 2 * t->row, t->count);
}

static void unpack_q8(uint8_t *panel, const tile *t, int g) { unpack_codes(8, panel, t, g); }
static void unpack_q4(uint8_t *panel, const tile *t, int g) { unpack_codes(4, panel, t, g); }

static void unpack_bf16(uint8_t *panel, const tile *t, int g) {
  const size_t column = 2 * t->of.rows, group_bytes = group_inputs * column;
  for (int k = 0; k < group_inputs; k++) {
    const uint8_t *at = t->of.weights + (size_t)g * group_bytes + (size_t)k * column + 2 * t->row;
    float *to = (float *)panel + tile_rows * k;
    for (int n = 0; n < t->count; n += 4 * lanes) store_floats(to + n, load_scales(at + 2 * n));
    for (int line = 0; line < 2 * t->count; line += 64) prefetch_later(at + (size_t)t->ahead * group_bytes + line);
  }
}

/* Where the tile's rows lie in the run of each input of a group. All runs go forward a block at a time, so that none waits for itself. */
INLINE void find_rows(int bits, const uint8_t *at[group_inputs], const mask_layout *mask, const tile *t, int g) {
  const int valid = smaller(t->of.cols - group_inputs * g, group_inputs), later = group_inputs * (g + t->ahead);
  for (int i = 0; i < valid; i++) at[i] = run_of(mask, group_inputs * g + i, t->row);
  for (size_t row = t->row / run_tile * run_tile; row < t->row; row += 32)
    for (int i = 0; i < valid; i++) at[i] += block_bytes_of(bits, word_at(at[i]));
  if (later + group_inputs > t->of.cols) return;
  for (int i = 0; i < group_inputs; i++) {
    const uint8_t *there = run_of(mask, later + i, t->row) + (at[i] - run_of(mask, group_inputs * g + i, t->row));
    for (int line = 0; line <= tile_rows * bits / 16; line += 64) prefetch_later(there + line);
  }
}

INLINE void unpack_mask_codes(int bits, uint8_t *panel, const tile *t, int g) {
  const mask_layout mask = mask_of(&t->of, bits);
  const int valid = smaller(t->of.cols - group_inputs * g, group_inputs);
  const uint8_t *at[group_inputs];
  find_rows(bits, at, &mask, t, g);
  for (int f = 0; f < group_inputs / 4; f++)
    for (int first = 0; first < t->count; first += 16 * lanes) {
      const int blocks = smaller((t->count - first) / 32, lanes / 2);
      ints v[4], o[4];
      UNROLL for (int i = 0; i < 4; i++)
        v[i] = 4 * f + i < valid ? open_rows(bits, &at[4 * f + i], blocks, t->of.spread_table) : splat_int(0);
      side_by_side(v[0], v[1], v[2], v[3], o);
      UNROLL for (int m = 0; m < 4; m++) o[m] = xor_bits(o[m], splat_byte(zero_code(bits)));
      store_fours(bits, panel, f, first, o);
    }
  unpack_scales(bits, panel, mask.scales + 2 * (t->of.rows * (size_t)g + t->row), t->count);
}

static void unpack_mask_q8(uint8_t *panel, const tile *t, int g) { unpack_mask_codes(8, panel, t, g); }
static void unpack_mask_q4(uint8_t *panel, const tile *t, int g) { unpack_mask_codes(4, panel, t, g); }

static void unpack_mask_bf16(uint8_t *panel, const tile *t, int g) {
  enum { step = 8 * lanes };
  const mask_layout mask = mask_of(&t->of, 16);
  const int valid = smaller(t->of.cols - group_inputs * g, group_inputs);
  const uint8_t *at[group_inputs];
  find_rows(16, at, &mask, t, g);
  for (int i = 0; i < group_inputs; i++) {
    float *to = (float *)panel + tile_rows * i;
    if (i >= valid) {
      memset(to, 0, tile_rows * sizeof(float));
      continue;
    }
    for (int row = 0; row < t->count; row += 32) {
      const uint32_t present = word_at(at[i]);
      ints w[mask_vectors];
      spread_halves(present, at[i] + 4, t->of.spread_table, w);
      UNROLL for (int k = 0; k < mask_vectors; k++) {
        floats first, second;
        from_mask_order(low_halves(w[k]), high_halves(w[k]), &first, &second);
        store_floats(to + row + step * k, first);
        store_floats(to + row + step * k + step / 2, second);
      }
      at[i] += block_bytes_of(16, present);
    }
  }
}

/* A row's two codes of four inputs are told to all four, which take the one that has their position, or the code of 0. */
INLINE void unpack_fours_codes(int bits, uint8_t *panel, const tile *t, int g) {
  static const int32_t rows[4] = {0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c};
  const size_t block_bytes = fours_block_bytes(bits), unit_bytes = unit_bytes_of(&t->of, bits);
  const uint8_t *data = units_of(&t->of, bits, g) + t->row / 32 * block_bytes;
  const ints zero = splat_byte(zero_code(bits)), inputs = splat_int(0x03020100);
  for (int unit = 0; unit < 4; unit++)
    for (int row = 0; row < t->count; row += 32) {
      const uint8_t *block = data + (size_t)unit * unit_bytes + (size_t)row / 32 * block_bytes;
      for (size_t line = 0; line < block_bytes; line += 64) prefetch_later(block + (size_t)(4 * t->ahead) * unit_bytes + line);
      UNROLL for (int half = 0; half < 2; half++) {
        UNROLL for (int part = 0; part < fours_parts; part++) {
          ints codes, positions;
          open_fours(bits, block, half, part, &codes, &positions);
          codes = xor_bits(codes, zero);
          UNROLL for (int four = 0; four < 2; four++) {
            const ints first = or_bits(repeat16(rows), splat_byte(2 * four)), second = or_bits(repeat16(rows), splat_byte(2 * four + 1));
            const ints v = or_bits(bytes_where(pick_bytes(positions, first), inputs, pick_bytes(codes, first)),
                                   bytes_where(pick_bytes(positions, second), inputs, pick_bytes(codes, second)));
            store_codes(bits, panel, 2 * unit + four, row + 16 * half + 4 * lanes * part, xor_bits(v, zero));
          }
        }
      }
    }
  unpack_scales(bits, panel, t->of.weights + 2 * (t->of.rows * (size_t)g + t->row), t->count);
}

static void unpack_fours_q8(uint8_t *panel, const tile *t, int g) { unpack_fours_codes(8, panel, t, g); }
static void unpack_fours_q4(uint8_t *panel, const tile *t, int g) { unpack_fours_codes(4, panel, t, g); }

static void unpack_fours_bf16(uint8_t *panel, const tile *t, int g) {
  enum { step = 8 * lanes };
  const size_t block_bytes = fours_block_bytes(16), unit_bytes = unit_bytes_of(&t->of, 16);
  const uint8_t *data = units_of(&t->of, 16, g) + t->row / 32 * block_bytes;
  const ints three = splat_int(3);
  for (int unit = 0; unit < 8; unit++)
    for (int row = 0; row < t->count; row += 32) {
      const uint8_t *block = data + (size_t)unit * unit_bytes + (size_t)row / 32 * block_bytes;
      for (size_t line = 0; line < block_bytes; line += 64) prefetch_later(block + (size_t)(8 * t->ahead) * unit_bytes + line);
      UNROLL for (int part = 0; part < fours_parts; part++) {
        ints w[2], in_low[2], in_high[2];
        UNROLL for (int n = 0; n < 2; n++) {
          w[n] = open_halves(block, n, part, &in_low[n], &in_high[n]);
          in_low[n] = and_bits(in_low[n], three);
          in_high[n] = and_bits(in_high[n], three);
        }
        UNROLL for (int i = 0; i < 4; i++) {
          const ints input = splat_int(i);
          floats first, second;
          from_halves(or_floats(floats_where(in_low[0], input, low_halves(w[0])), floats_where(in_low[1], input, low_halves(w[1]))),
                      or_floats(floats_where(in_high[0], input, high_halves(w[0])), floats_where(in_high[1], input, high_halves(w[1]))), &first, &second);
          float *to = (float *)panel + tile_rows * (4 * unit + i) + row + step * part;
          store_floats(to, first);
          store_floats(to + step / 2, second);
        }
      }
    }
}

/* Formats of which there are panels. */
typedef struct {
  int code;
  /* Of the numbers that a panel holds. */
  int bits;
  int is_sparse;
  unpack_group *unpack;
} panel_format;

static const panel_format *panel_format_of(int code) {
#define FORMAT(structure, dense) (rarefy_structure_##structure << rarefy_structure_shift | rarefy_format_##dense)
  static const panel_format formats[] = {
      {FORMAT(dense, q8), 8, 0, unpack_q8},
      {FORMAT(dense, q4), 4, 0, unpack_q4},
      {FORMAT(dense, bf16), 16, 0, unpack_bf16},
      {FORMAT(bitmask, q8), 8, 1, unpack_mask_q8},
      {FORMAT(bitmask, q4), 4, 1, unpack_mask_q4},
      {FORMAT(bitmask, bf16), 16, 1, unpack_mask_bf16},
      {FORMAT(two_of_four, q8), 8, 1, unpack_fours_q8},
      {FORMAT(two_of_four, q4), 4, 1, unpack_fours_q4},
      {FORMAT(two_of_four, bf16), 16, 1, unpack_fours_bf16},
  };
#undef FORMAT
  for (size_t n = 0; n < sizeof formats / sizeof *formats; n++)
    if (formats[n].code == code) return formats + n;
  return NULL;
}
