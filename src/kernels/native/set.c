/* The kernels, compiled once for every instruction set: RAREFY_SET names it, and the compiler's flags say what it has; and once
 * more with RAREFY_ROUNDS_TWICE. */
#include "common.h"
#include "inputs.h"
#if defined __aarch64__
#include "vector128.h"
#elif defined __AVX512F__
#include "vector512.h"
#else
#include "vector256.h"
#endif
#include "groups.h"
#include "columns.h"
#include "names.h"
#include "sparse.h"
#ifdef __AVX512F__
/* Those of narrow.c. */
#define add_mask_q8 NAMED(narrow_mask_q8)
#define add_mask_q4 NAMED(narrow_mask_q4)
add_sparse_group add_mask_q8, add_mask_q4;
#endif
#include "matvec.h"
#include "panels.h"
#ifdef __AMX_INT8__
#include "amx.h"
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
#include "mmla.h"
#endif
#include "tiles.h"
#include "product.h"

/* In attention.c and rows.c; on ARM WebAssembly does it. */
#if defined __AVX512F__
#define ATTENTION NAME(attention, avx512)
#define ROWS NAME(rows, avx512)
#elif defined __AVX2__
#define ATTENTION NAME(attention, avx2)
#define ROWS NAME(rows, avx2)
#endif
#ifdef ATTENTION
kernel ATTENTION, ROWS;
#else
#define ATTENTION NULL
#define ROWS NULL
#endif

#define TEXT(set) #set
#define QUOTED(set) TEXT(set)

const kernel_set NAMED(kernels) = {
    QUOTED(RAREFY_SET),
    {
        [rarefy_native_matvec] = matvec,
        [rarefy_native_prepare] = prepare,
        [rarefy_native_tiles] = tiles,
        [rarefy_native_attention] = ATTENTION,
        [rarefy_native_product] = product,
        [rarefy_native_rows] = ROWS,
    },
};
