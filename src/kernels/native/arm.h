/* Sets of kernels for 64-bit ARM. Every such processor has NEON; what it has beside, the system says. */
#ifdef __APPLE__
#include <sys/sysctl.h>

static int says(const char *name) {
  int answer = 0;
  size_t size = sizeof answer;
  return sysctlbyname(name, &answer, &size, NULL, 0) == 0 && answer != 0;
}

static int has_dot_products(void) { return says("hw.optional.arm.FEAT_DotProd"); }
static int has_matrix_products(void) { return says("hw.optional.arm.FEAT_I8MM"); }
#else
#include <sys/auxv.h>

/* Bits of <asm/hwcap.h>, which older systems do not name. The first is of what compilers take for granted beside dot products. */
enum { atomics = 1 << 8, dot_products = 1 << 20, matrix_products_of_second = 1 << 13 };

static int has_dot_products(void) { return (getauxval(AT_HWCAP) & (atomics | dot_products)) == (atomics | dot_products); }
static int has_matrix_products(void) { return (getauxval(AT_HWCAP2) & matrix_products_of_second) != 0; }
#endif

/* See x86.h; nothing was measured on ARM. */
static int prefers_second(void) { return 0; }

static int has_neon(void) { return 1; }
static int has_dotprod(void) { return has_dot_products(); }
static int has_i8mm(void) { return has_dot_products() && has_matrix_products(); }

/* The best one first. */
static const kernel_choice choices[] = {
    {has_i8mm, &kernels_i8mm, &kernels_twice_i8mm},
    {has_dotprod, &kernels_dotprod, &kernels_twice_dotprod},
    {has_neon, &kernels_neon, &kernels_twice_neon},
};
