/* Sets of kernels for x86-64, and when the processor has what they need. */
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bits of the extended control register: what the system saves. */
enum { saves_avx = 0x06, saves_avx512 = 0xe6, saves_tiles = 0x60000 };

static int all(unsigned word, unsigned bits) { return (word & bits) == bits; }

static int saves(unsigned registers) {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return all(low, registers);
}

typedef struct {
  unsigned a, b, c, d;
} answer;

/* Zeros where the processor does not know the question. */
static answer ask(unsigned leaf, unsigned part) {
  answer of = {0, 0, 0, 0};
  if (!__get_cpuid_count(leaf, part, &of.a, &of.b, &of.c, &of.d)) of = (answer){0, 0, 0, 0};
  return of;
}

/* Whether weights are best fetched ahead to the second-level cache. On AMD's cores few lines can be on their way to the first one at once: products of one
 * row from memory take 1.1 to 1.5 times as long there when it is the first. */
static int prefers_second(void) {
  const answer vendor = ask(0, 0);
  return vendor.b == signature_AMD_ebx && vendor.c == signature_AMD_ecx && vendor.d == signature_AMD_edx;
}

/* AVX2 with FMA. */
static int has_avx2(void) {
  const unsigned fma = 1u << 12, popcnt = 1u << 23, xsave = 1u << 27, avx = 1u << 28, avx2 = 1u << 5, bmi2 = 1u << 8;
  return all(ask(1, 0).c, fma | popcnt | xsave | avx) && saves(saves_avx) && all(ask(7, 0).b, avx2 | bmi2);
}

static int has_avxvnni(void) { return has_avx2() && all(ask(7, 1).a, 1u << 4); }

/* AVX-512 with VNNI, VBMI2 and what kernels take for granted beside them. */
static int has_avx512(void) {
  const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
  const unsigned vbmi = 1u << 1, vbmi2 = 1u << 6, vnni = 1u << 11;
  const answer of = ask(7, 0);
  return has_avx2() && all(of.b, avx512) && all(of.c, vbmi | vbmi2 | vnni) && saves(saves_avx512);
}

/* The same with tiles of bytes. Their registers are so large that Linux lets a process use them only once it has asked. */
static int has_amx(void) {
  const unsigned tiles = 1u << 24, of_bytes = 1u << 25;
  const long ask_for_state = 0x1023, tile_data = 18;
  return has_avx512() && all(ask(7, 0).d, tiles | of_bytes) && saves(saves_tiles) && syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}

/* The best one first. */
static const kernel_choice choices[] = {
    {has_amx, &kernels_amx, &kernels_twice_amx},
    {has_avx512, &kernels_avx512, &kernels_twice_avx512},
    {has_avxvnni, &kernels_avxvnni, &kernels_twice_avxvnni},
    {has_avx2, &kernels_avx2, &kernels_twice_avx2},
};
