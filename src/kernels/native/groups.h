/* Sums of the products of codes and inputs of one group: in 16 bits where vector256.h says that they fit. */

#ifdef SHORT_SUMS
INLINE int are_short(int bits) { return bits == 4; }
#else
INLINE int are_short(int bits) {
  (void)bits;
  return 0;
}
INLINE ints add_short(ints sums, ints bytes, ints x) { return dot_q4(sums, bytes, x); }
INLINE ints widen_pairs(ints pairs) { return pairs; }
#endif

/* What the sums of a group start with, whose rounded inputs add up to `sum`: less that times what codes are greater by. Of two short ones it is the
 * first that starts with it, and ends within 16 bits whatever it wraps around to before: Σ (code - 8) · x of its 16 inputs, less 8 · Σ x of the
 * second's, at most 8 · 32 · 127. */
INLINE int start_of(int bits, int sum) {
  const int start = -(bits == 8 ? q8_offset : 8) * sum;
  return are_short(bits) ? start & 0xffff : start;
}

INLINE ints add_dots(int bits, ints sums, ints bytes, ints x) {
  if (bits == 8) return dot_q8(sums, bytes, x);
  return are_short(bits) ? add_short(sums, bytes, x) : dot_q4(sums, bytes, x);
}
INLINE ints end_sums(int bits, ints sums) { return are_short(bits) ? widen_pairs(sums) : sums; }

/* Sums of the high nibbles of bytes: what they start with, one step, and their end, which knows those of the low nibbles. */
#ifdef WHOLE_BYTES
/* Whole bytes are multiplied, and what comes out is 16 times the high nibbles' sum and once the low ones': that saves bringing the high ones down. */
INLINE int start_of_high(int start) { return 17 * start; }
INLINE ints add_high(ints sums, ints bytes, ints x) { return dot_q8(sums, bytes, x); }
INLINE ints end_high(ints sums, ints low) { return sixteenth(subtract_ints(sums, low)); }
#else
INLINE int start_of_high(int start) { return start; }
INLINE ints add_high(ints sums, ints bytes, ints x) { return add_dots(4, sums, high_nibbles(bytes), x); }
INLINE ints end_high(ints sums, ints low) {
  (void)low;
  return sums;
}
#endif
