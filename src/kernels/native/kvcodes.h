/* Keys and values that are kept as codes, as f32: what `unpackHead` of wasm/assembly/kvCodes.ts does, with the same bits. */

/* Where the keys, or the values, of one head lie. A group is, `by_channel`, one channel of kiviGroup slots, else `channels` channels of one. */
typedef struct {
  const uint8_t *codes;
  const uint32_t *scales;
  const float *ring;
  int ring_slots, coded, bits, width, by_channel, channels;
} coded_head;

INLINE size_t code_row_bytes(int width, int bits) { return (size_t)((width * bits + 31) / 32) * 4; }

INLINE floats scales_of(ints groups) { return halves_to_floats(and_bits(groups, splat_int(0xffff))); }
INLINE floats zeros_of(ints groups) { return halves_to_floats(shift_right(groups, splat_int(16))); }

/* A vector of codes as words; they begin at a byte. */
INLINE ints load_codes(int bits, const uint8_t *at) {
  const int byte_length = 4 * lanes * bits / 8;
  uint64_t few = 0;
  if (byte_length < 16) memcpy(&few, at, byte_length < 8 ? (size_t)byte_length : 8);
  __m128i bytes = byte_length < 16 ? _mm_cvtsi64_si128((long long)few) : _mm_loadu_si128((const void *)at);
  if (bits == 8) return widen_bytes(bytes);
  /* Every byte as often as it holds codes. */
  bytes = _mm_unpacklo_epi8(bytes, bytes);
  if (bits == 4) return and_bits(shift_right(widen_bytes(bytes), repeat16((const int32_t[4]){0, 4, 0, 4})), splat_int(15));
  bytes = _mm_unpacklo_epi8(bytes, bytes);
  return and_bits(shift_right(widen_bytes(bytes), repeat16((const int32_t[4]){0, 2, 4, 6})), splat_int(3));
}

INLINE void store_codes(int bits, const uint8_t *at, floats scale, floats zero, float *to) {
  store_floats(to, multiply_add(to_floats(load_codes(bits, at)), scale, zero));
}

INLINE void open_row(int bits, const coded_head *h, int slot, float *to) {
  const uint8_t *codes = h->codes + (size_t)slot * code_row_bytes(h->width, bits);
  const int groups = (h->width + h->channels - 1) / h->channels;
  const uint32_t *scales = h->scales + (size_t)slot * (size_t)groups;
  for (int g = 0; g < groups; g++) {
    const ints group = splat_int((int)scales[g]);
    const floats scale = scales_of(group), zero = zeros_of(group);
    const int end = smaller(h->width, (g + 1) * h->channels);
    for (int c = g * h->channels; c < end; c += 4 * lanes) store_codes(bits, codes + c * bits / 8, scale, zero, to + c);
  }
}

/* Rows of one group of slots. */
INLINE void open_channels(int bits, const coded_head *h, int slot, int n, float *to) {
  const size_t row = code_row_bytes(h->width, bits);
  const uint8_t *codes = h->codes + (size_t)slot * row;
  const uint32_t *scales = h->scales + (size_t)(slot / rarefy_kivi_group) * (size_t)h->width;
  for (int c = 0; c < h->width; c += 4 * lanes) {
    const ints groups = load_bytes(scales + c);
    const floats scale = scales_of(groups), zero = zeros_of(groups);
    for (int k = 0; k < n; k++) store_codes(bits, codes + (size_t)k * row + c * bits / 8, scale, zero, to + (size_t)k * (size_t)h->width + c);
  }
}

INLINE void open_slots(int bits, const coded_head *h, int slot, int n, float *to) {
  for (int k = 0; k < n;) {
    const int rows = h->by_channel ? smaller(n - k, rarefy_kivi_group - (slot + k) % rarefy_kivi_group) : 1;
    float *target = to + (size_t)k * (size_t)h->width;
    if (h->by_channel) open_channels(bits, h, slot + k, rows, target);
    else open_row(bits, h, slot + k, target);
    k += rows;
  }
}

/* n rows from `slot` on, as f32 [n][width]. */
static void open_head(const coded_head *h, int slot, int n, float *to) {
  const int coded = larger(0, smaller(n, h->coded - slot));
  if (h->bits == 8) open_slots(8, h, slot, coded, to);
  else if (h->bits == 4) open_slots(4, h, slot, coded, to);
  else open_slots(2, h, slot, coded, to);
  const size_t width = (size_t)h->width;
  for (int k = coded; k < n; k++) memcpy(to + (size_t)k * width, h->ring + (size_t)((slot + k) % h->ring_slots) * width, width * sizeof(float));
}
