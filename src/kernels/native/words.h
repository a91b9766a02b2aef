/* 8-bit codes of tiles and inputs as words of 16 bits, where vector256.h says so (CODE_WORDS). Without an instruction that adds four products of bytes,
 * 32 products take four instructions either way, but of bytes with signs three go to the same two ports, of words only two.
 *
 * The bytes of a four become words in two halves of a group: its first and third in the one, its second and fourth in the other. */

enum { words_of_group = 2 * group_inputs };

#ifdef CODE_WORDS
INLINE int are_words(int bits) { return bits == 8; }
#else
INLINE int are_words(int bits) {
  (void)bits;
  return 0;
}
INLINE void open_words(ints fours, ints *first, ints *second) { *first = *second = fours; }
INLINE ints add_words(ints sums, ints words, ints x) { return dot_q8(sums, words, x); }
#endif

/* Into a panel, rows from `row` on of the group's four number `four`; codes of 8 bits are greater by 128. */
INLINE void store_codes(int bits, uint8_t *panel, int four, int row, ints v) {
  uint8_t *to = panel + 4 * (tile_rows * four + row);
  if (!are_words(bits)) {
    store_bytes(to, v);
    return;
  }
  ints first, second;
  open_words(xor_bits(v, splat_byte(128)), &first, &second);
  store_bytes(to, first);
  store_bytes(to + code_panel, second);
}

/* Inputs of `n` tokens, to [groups][n][words_of_group]. */
INLINE void widen_inputs(int n, int groups, const int8_t *codes, int padded, uint8_t *words) {
  for (int g = 0; g < groups; g++)
    UNROLL for (int t = 0; t < n; t++) {
      ints first, second;
      open_words(load_bytes(codes + group_inputs * (g * padded + t)), &first, &second);
      store_bytes(words + words_of_group * (n * g + t), first);
      store_bytes(words + words_of_group * (n * g + t) + group_inputs, second);
    }
}
