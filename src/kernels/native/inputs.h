/* The inputs of a group of 32 that a product keeps, and their rounding to 8 bits. The same numbers as
 * wasm/assembly/activeInputs.ts makes, so that both give the same bits. */
#include "common.h"

typedef struct {
  int kept;
  /* Fours of kept inputs; the last is filled up with the first kept one times 0. */
  int fours;
  float scale;
  int sum;
  uint8_t column[group_inputs];
  /* Of those rounded, in fours. */
  _Alignas(4) int8_t code[group_inputs];
  /* Of those that are not. */
  float value[group_inputs];
} active_inputs;

INLINE uint32_t bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
INLINE float float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, 4);
  return v;
}
INLINE float magnitude(float v) { return float_of(bits_of(v) & 0x7fffffff); }

/* |x| > threshold, or NaN, which must show in the result. A negative threshold keeps all. */
INLINE int keeps(float value, float threshold) { return !(magnitude(value) <= threshold); }

/* The group's 32 inputs; an incomplete group is copied and filled with zeros. */
INLINE const float *completed(const float *x, int valid, float copy[group_inputs]) {
  if (valid == group_inputs) return x;
  memset(copy, 0, group_inputs * sizeof(float));
  memcpy(copy, x, (size_t)valid * sizeof(float));
  return copy;
}

/* round_group: 32 inputs as 8-bit integers with one scale, max|x| / 127, to nearest even; those that are not kept as 0. */
#ifdef __aarch64__
#include "round128.h"
#else
#include "round256.h"
#endif

/* Lists the kept ones of `valid` inputs. */
static void select_inputs(active_inputs *list, const float *x, int valid, float threshold) {
  int kept = 0;
  for (int i = 0; i < valid; i++) {
    list->column[kept] = (uint8_t)i;
    kept += keeps(x[i], threshold);
  }
  list->kept = kept;
  list->fours = (kept + 3) / 4;
}

/* For weights with scaled codes. */
static void list_rounded(active_inputs *list, const float *x, int valid, float threshold) {
  select_inputs(list, x, valid, threshold);
  if (list->kept == 0) return;
  float copy[group_inputs];
  int8_t codes[group_inputs];
  round_group(completed(x, valid, copy), threshold, codes, &list->scale, &list->sum);
  for (int n = 0; n < 4 * list->fours; n++) {
    if (n >= list->kept) list->column[n] = list->column[0];
    list->code[n] = n < list->kept ? codes[list->column[n]] : 0;
  }
}

/* For weights that are numbers, in the order in which the WebAssembly kernels add them: in passes of 8, or of 4 for up to four
 * left over, the n-th of each pass before the next of any. */
static void list_values(active_inputs *list, const float *x, int valid, float threshold) {
  active_inputs all;
  select_inputs(&all, x, valid, threshold);
  const int rest = all.kept % 8, passes = all.kept / 8 + (rest > 4);
  int next = 0;
  for (int p = 0; p < passes; p++)
    for (int n = p; n < smaller(8 * passes, all.kept); n += passes) list->column[next++] = all.column[n];
  for (int n = 8 * passes; n < all.kept; n++) list->column[next++] = all.column[n];
  for (int n = 0; n < next; n++) list->value[n] = x[list->column[n]];
  list->kept = next;
}
