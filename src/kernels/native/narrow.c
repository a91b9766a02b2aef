/* Of the AVX-512 set, bit masks of codes with scales: in vectors of 32 bytes, which two ports can shuffle where one does those of
 * 64. What binds these kernels is shuffling and expanding. */
#include "common.h"
#include "inputs.h"
#include "vector256.h"
#include "groups.h"
#include "columns.h"
#include "names.h"
#include "sparse.h"

size_t NAMED(narrow_mask_q8)(float *y, const sparse_group *g) { return add_mask_q8(y, g); }
size_t NAMED(narrow_mask_q4)(float *y, const sparse_group *g) { return add_mask_q4(y, g); }
