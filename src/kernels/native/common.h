/* What all kernels share. */
#ifndef RAREFY_COMMON_H
#define RAREFY_COMMON_H

#include "kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Loops over registers must be unrolled, or the registers lie in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#define ROLLED _Pragma("GCC unroll 1")
#endif

enum { group_inputs = 32 };

INLINE void *at_offset(const place *at, uint32_t offset) { return at->memory + offset; }

/* The next work item of the running operation: 0, 1, 2 … over all threads. The barrier that follows resets it. */
INLINE int take_work(const place *at) {
  return (int)__atomic_fetch_add((uint32_t *)at_offset(at, rarefy_control_work), 1, __ATOMIC_SEQ_CST);
}

INLINE int smaller(int a, int b) { return a < b ? a : b; }
INLINE int larger(int a, int b) { return a > b ? a : b; }

/* Into the second-level cache, for what is needed later. */
INLINE void prefetch_later(const void *p) { __builtin_prefetch(p, 0, 2); }

/* Whether what is needed next is fetched no further than that: chosen in processor.c. */
extern int rarefy_fetches_to_second;

/* Into the first-level cache, or where the processor would rather have it. */
INLINE void prefetch(const void *p) {
  if (rarefy_fetches_to_second) prefetch_later(p);
  else __builtin_prefetch(p, 0, 3);
}

/* Adds to what this thread has counted: weight bytes read, inputs offered, inputs skipped. */
INLINE void add_counts(const place *at, double bytes, double offered, double skipped) {
  double *counts = at_offset(at, rarefy_control_counters + 64 * (uint32_t)at->thread);
  counts[0] += bytes;
  counts[1] += offered;
  counts[2] += skipped;
}

#endif
