/* The kernels, compiled once for every instruction set: RAREFY_SET names it, and the compiler's flags say what it has; and once
 * more with RAREFY_ROUNDS_TWICE. */
#include "common.h"
#include "inputs.h"
#ifdef __AVX512F__
#include "vector512.h"
#else
#include "vector256.h"
#endif
#include "columns.h"
#include "sparse.h"
#include "matvec.h"
#include "panels.h"
#include "tiles.h"

#define JOINED(a, b) a##b
#ifdef RAREFY_ROUNDS_TWICE
#define NAMED(set) JOINED(kernels_twice_, set)
#else
#define NAMED(set) JOINED(kernels_, set)
#endif
#define TEXT(set) #set
#define QUOTED(set) TEXT(set)

const kernel_set NAMED(RAREFY_SET) = {
    QUOTED(RAREFY_SET),
    {
        [rarefy_native_matvec] = matvec,
        [rarefy_native_prepare] = prepare,
        [rarefy_native_tiles] = tiles,
    },
};
