/* Which instruction sets the processor has and the system saves the registers of. */
#define _GNU_SOURCE
#include "kernels.h"

#include <string.h>

/* A set, and the same with two roundings. */
typedef struct {
  int (*has)(void);
  const kernel_set *once, *twice;
} kernel_choice;

#ifdef __aarch64__
#include "arm.h"
#else
#include "x86.h"
#endif

int rarefy_fetches_to_second;

const kernel_set *choose_kernels(const char *limit, int rounds_twice) {
  rarefy_fetches_to_second = prefers_second();
  for (size_t n = 0; n < sizeof choices / sizeof *choices; n++)
    if ((limit == NULL || strcmp(choices[n].once->name, limit) == 0) && choices[n].has()) return rounds_twice ? choices[n].twice : choices[n].once;
  return NULL;
}
