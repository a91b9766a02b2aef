/* Sums of the products of codes and inputs of one group, which start with `from`: in 16 bits where vector256.h says that they fit. */

#ifdef SHORT_SUMS
INLINE int are_short(int bits) { return bits == 4; }
#else
INLINE int are_short(int bits) {
  (void)bits;
  return 0;
}
INLINE ints add_short(ints sums, ints bytes, ints x) { return dot_q4(sums, bytes, x); }
INLINE ints add_pairs(ints sums, ints pairs) {
  (void)pairs;
  return sums;
}
#endif

INLINE ints begin_sums(int bits, int from) { return splat_int(are_short(bits) ? 0 : from); }
INLINE ints add_dots(int bits, ints sums, ints bytes, ints x) {
  if (bits == 8) return dot_q8(sums, bytes, x);
  return are_short(bits) ? add_short(sums, bytes, x) : dot_q4(sums, bytes, x);
}
INLINE ints end_sums(int bits, int from, ints sums) { return are_short(bits) ? add_pairs(splat_int(from), sums) : sums; }
