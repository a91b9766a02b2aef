/* The kernels, compiled once for every instruction set: RAREFY_SET names it, and the compiler's flags say what it has. */
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
#define NAMED(set) JOINED(kernels_, set)
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
