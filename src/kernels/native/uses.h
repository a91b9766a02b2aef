/* What of layout.ts and records.ts the kernels are compiled with, for the host to compare with its own. */
#ifdef CONSTANT
CONSTANT("controlWork", rarefy_control_work)
CONSTANT("controlCounters", rarefy_control_counters)
CONSTANT("spreadTable", rarefy_spread_table)
CONSTANT("formatBf16", rarefy_format_bf16)
CONSTANT("formatQ8", rarefy_format_q8)
CONSTANT("formatQ4", rarefy_format_q4)
CONSTANT("structureShift", rarefy_structure_shift)
CONSTANT("structureDense", rarefy_structure_dense)
CONSTANT("structureBitmask", rarefy_structure_bitmask)
CONSTANT("structureTwoOfFour", rarefy_structure_two_of_four)
CONSTANT("dotByte", rarefy_dot_byte)
CONSTANT("panelBytes", rarefy_panel_bytes)
CONSTANT("tilesAtOnce", rarefy_tiles_at_once)
CONSTANT("nativeMatvec", rarefy_native_matvec)
CONSTANT("nativePrepare", rarefy_native_prepare)
CONSTANT("nativeTiles", rarefy_native_tiles)
#endif
#ifdef RECORD
RECORD("matvec", rarefy_record_of_matvec)
RECORD("matmul", rarefy_record_of_matmul)
#endif
