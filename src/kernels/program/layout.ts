// What the AssemblyScript kernels and their TypeScript host must agree on. This file is compiled by both: plain integer
// constants only.

/** Control block at the start of every memory; the AssemblyScript code keeps no data of its own below `heapStart`. */
export const controlBarrierCount = 1024; // u32: threads that have arrived at the barrier
export const controlBarrierPhase = 1088; // u32: number of barriers passed; waited on
export const controlTicket = 1152; // u32: next program ticket; waited on by parked workers
export const controlArena = 1216; // i32: memory whose program the ticket is for, or `leaveLoop`
export const controlWork = 1280; // u32: next work item of the running operation
export const controlFailed = 1344; // u32: not 0 once a thread has ended with an error
/** Per thread 64 bytes: f64 weight bytes read, f64 inputs offered, f64 inputs skipped. */
export const controlCounters = 2048;
export const maxThreads = 64;
export const programStart = 8192;
export const programBytes = 262144;
/**
 * Lookup tables, written by the host. For every mask of 8 rows 32 bytes: 16 that spread the present 16-bit codes over the 8
 * rows in the order of `interleaved8`, 8 that spread bytes, how many are present, and twice that. A byte above 127 gives 0.
 */
export const spreadTable = 270336;
/** For every four 2-bit positions 16 bytes that take those of four f32 numbers. */
export const gatherTable = 278528;
/** Vectors: 0xffff0000 in each word; 15, 3, 1, 128, and 8 in each byte; bytes 0, 0, 4, 4 repeated. */
export const constantsTable = 282624;
export const heapStart = 282752;

export const leaveLoop = -1;

/** Rows of a matrix-vector product whose integer sums are held at once: they stay in the first-level cache. */
export const tileRows = 2048;

/** One active-input list, what making it takes (assembly/activeInputs.ts), and with i32 [tileRows] the scratch of one thread. */
export const groupRecordBytes = 288;
export const activeInputsScratchBytes = 224;
export const matvecScratchBytes = 8704;

/** Rows that lie one by one and are multiplied together, and the scratch of one thread: as of matvec, a group of them, their sums, a list of
 * them; behind it, of codes, for every group of inputs these rounded to 8 bits, their scale and their sum. */
export const rowsAtOnce = 64;
export const rowsScratchBytes = 9984;
export const roundedGroupBytes = 72;

/** As `matvecScratchBytes`, for the formats that leave zeros out; sums of at most `sparseTileRows` rows. */
export const sparseTileRows = 512;
export const sparseScratchBytes = 12288;

/** Scratch of one thread in a matrix-matrix product: an unpacked panel (native kernels unpack several groups), then f32 sums [tokens][64]
 * for each of the tiles that native kernels work on together. */
export const panelBytes = 36864;
export const tilesAtOnce = 4;
/** One group of a format that leaves zeros out, unpacked; it lies between panel and sums. */
export const unpackedBytes = 4224;

/** As in kernels/sight.ts: rows that share a list of key blocks, and slots of a block. */
export const rowsOfGroup = 16;
export const slotsOfBlock = 32;

/** As in kernels/kvCodes.ts. */
export const kiviGroup = 32;

/** Keys that attention takes at once. */
export const attentionBlockKeys = 64;
/** Scratch of one thread for the `CodedHead` of keys and of values. */
export const codedHeadsBytes = 128;

/** Scratch of one thread in attention: scores, then queries and sums f32 [4][width] each, for as many fours as native kernels take at once. */
export const attentionScoreBytes = 1024;
export const attentionFours = 8;

export const formatF32 = 0;
export const formatBf16 = 1;
export const formatQ8 = 2;
export const formatQ4 = 3;

/** A format is a structure and, in the lowest bits, the dense format of its codes (assembly/formats.ts): a dense one is itself. */
export const structureShift = 2;
export const structureDense = 0;
export const structureBitmask = 1;
export const structureTwoOfFour = 2;
export const structureCsr = 3;
export const structureBlock = 4;
export const structureTiledCsl = 5;
export const structureInt8Mixed = 6;

export const dtypeF32 = 0;
export const dtypeBf16 = 1;
export const dtypeF16 = 2;

/** How 8-bit products are summed: widened to 16 bits (everywhere), or by the relaxed dot where it is exact for u8 × s8. */
export const dotWide = 0;
export const dotByte = 1;

/** Kernels that may be native, each for a phase of an operation. */
export const nativeMatvec = 0;
export const nativePrepare = 1;
export const nativeTiles = 2;
export const nativeAttention = 3;
/** Of the kernels that train. */
export const nativeProduct = 4;
export const nativeRows = 5;
/** How many there are; only the C code asks (native/kernels.h). */
export const nativeKernels = 6;

/**
 * A product in training copies its factors into panels: so much of the depth of the sums at a time, of the left factor so many rows, of
 * the right one so many columns; and the scratch of one thread for both, with room for the last panel.
 */
export const productDepth = 256;
export const productRows = 96;
export const productColumns = 512;
export const productScratchBytes = 655360;

export const functionSilu = 0;
export const functionRelu = 1;
export const functionGelu = 2;
export const functionGeluTanh = 3;
export const functionRelu2 = 4;
/** Those with a number. */
export const functionScale = 5;
export const functionSoftcap = 6;
export const functionClamp = 7;

/** How rows become one; see `PoolOptions`. */
export const poolMean = 0;
export const poolLeast = 1;
export const poolLargest = 2;
