/* Large pages for what is written whole: a processor looks addresses of 4 KiB pages up more often than it can remember them. */
#define _GNU_SOURCE
#include "kernels.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

void use_large_pages(uint8_t *start, size_t byte_length) {
#ifdef __linux__
  /* Only whole ones, so that nothing becomes resident that was not asked for. A system that refuses leaves all as it is. */
  const uintptr_t page = 2 << 20, from = ((uintptr_t)start + page - 1) / page * page, to = ((uintptr_t)start + byte_length) / page * page;
  if (from < to) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
  (void)start;
  (void)byte_length;
#endif
}
