/* What a set of kernels for one instruction set offers. All of them work on the memory of the WebAssembly backend, on records
 * that the host has checked. */
#ifndef RAREFY_KERNELS_H
#define RAREFY_KERNELS_H

#include "../program/generated/records.h"

/* Where a program runs: the memory that its records' offsets count from, and which of how many threads this is. */
typedef struct {
  uint8_t *memory;
  int thread;
  int threads;
} place;

/* Does the work of a record on this thread. Answers 0, and has done nothing, where it does not know the record's variant. */
typedef int kernel(const place *at, const void *record);

typedef struct {
  const char *name;
  kernel *kernels[rarefy_native_kernels];
} kernel_set;

extern const kernel_set kernels_amx, kernels_avx512, kernels_avxvnni, kernels_avx2;
/* The same with two roundings where those have one. */
extern const kernel_set kernels_twice_amx, kernels_twice_avx512, kernels_twice_avxvnni, kernels_twice_avx2;
/* For 64-bit ARM. */
extern const kernel_set kernels_i8mm, kernels_dotprod, kernels_neon;
extern const kernel_set kernels_twice_i8mm, kernels_twice_dotprod, kernels_twice_neon;

/* The set named `limit`, or the best one where that is NULL; NULL where the processor or the system cannot run it. */
const kernel_set *choose_kernels(const char *limit, int rounds_twice);

/* Asks the system to hold bytes that will all be written in large pages, where it has any. */
void use_large_pages(uint8_t *start, size_t byte_length);

#endif
