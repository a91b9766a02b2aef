/* Which instruction sets the processor has and the system saves the registers of. */
#include "kernels.h"

#include <cpuid.h>
#include <string.h>

/* Bits of the extended control register: what the system saves. */
enum { saves_avx = 0x06, saves_avx512 = 0xe6 };

static unsigned saved_state(void) {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static int all(unsigned word, unsigned bits) { return (word & bits) == bits; }

/* 0: none; 1: AVX2 with FMA; 2: and AVX-VNNI; 3: AVX-512 with VNNI, VBMI2 and what kernels take for granted beside them. */
static int processor_level(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const unsigned fma = 1u << 12, popcnt = 1u << 23, xsave = 1u << 27, avx = 1u << 28;
  if (!all(c, fma | popcnt | xsave | avx)) return 0;
  const unsigned saved = saved_state();
  if (!all(saved, saves_avx) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const unsigned avx2 = 1u << 5, bmi2 = 1u << 8;
  if (!all(b, avx2 | bmi2)) return 0;
  const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
  const unsigned vbmi = 1u << 1, vbmi2 = 1u << 6, vnni = 1u << 11;
  if (all(b, avx512) && all(c, vbmi | vbmi2 | vnni) && all(saved, saves_avx512)) return 3;
  const unsigned avx_vnni = 1u << 4;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && all(a, avx_vnni)) return 2;
  return 1;
}

const kernel_set *choose_kernels(const char *limit, int rounds_twice) {
  static const kernel_set *const once[] = {NULL, &kernels_avx2, &kernels_avxvnni, &kernels_avx512};
  static const kernel_set *const twice[] = {NULL, &kernels_twice_avx2, &kernels_twice_avxvnni, &kernels_twice_avx512};
  const kernel_set *const *by_level = rounds_twice ? twice : once;
  int level = processor_level();
  /* AVX-512 processors may lack AVX-VNNI, so that limiting them to it has to ask anew. */
  while (level > 0 && limit != NULL && strcmp(by_level[level]->name, limit) != 0) level--;
  if (level == 2 && limit != NULL) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !all(a, 1u << 4)) return NULL;
  }
  return by_level[level];
}
