// What the AssemblyScript kernels and their TypeScript host must agree on. This file is compiled by both: plain integer
// constants only.

/** Control block at the start of every memory; the AssemblyScript code keeps no data of its own below `heapStart`. */
export const controlBarrierCount = 1024; // u32: threads that have arrived at the barrier
export const controlBarrierPhase = 1088; // u32: number of barriers passed; waited on
export const controlTicket = 1152; // u32: next program ticket; waited on by parked workers
export const controlArena = 1216; // i32: memory whose program the ticket is for, or `leaveLoop`
export const controlWork = 1280; // u32: next work item of the running operation
/** Per thread 64 bytes: f64 weight bytes read, f64 inputs offered, f64 inputs skipped. */
export const controlCounters = 2048;
export const maxThreads = 64;
export const programStart = 8192;
export const programBytes = 262144;
export const heapStart = 270336;

export const leaveLoop = -1;

/** Rows of a matrix-vector product whose integer sums are held at once: they stay in the first-level cache. */
export const tileRows = 2048;

/** One active-input list, what making it takes (assembly/activeInputs.ts), and with i32 [tileRows] the scratch of one thread. */
export const groupRecordBytes = 288;
export const activeInputsScratchBytes = 224;
export const matvecScratchBytes = 8704;

/** Scratch of one thread in a matrix-matrix product: an unpacked panel, then f32 sums [tokens][64]. */
export const panelBytes = 8448;

/** Scratch of one thread in attention: scores, then queries and sums f32 [4][headDim] each. */
export const attentionScoreBytes = 1024;

export const formatF32 = 0;
export const formatBf16 = 1;
export const formatQ8 = 2;
export const formatQ4 = 3;

export const dtypeF32 = 0;
export const dtypeBf16 = 1;
export const dtypeF16 = 2;

/** How 8-bit products are summed: widened to 16 bits (everywhere), or by the relaxed dot where it is exact for u8 × s8. */
export const dotWide = 0;
export const dotByte = 1;

export const functionSilu = 0;
export const functionRelu = 1;
export const functionGelu = 2;
export const functionGeluTanh = 3;
export const functionRelu2 = 4;

export const opEnd = 0;
export const opMatvec = 1;
export const opMatmul = 2;
export const opRmsNorm = 3;
export const opRope = 4;
export const opAppendKv = 5;
export const opAttention = 6;
export const opGated = 7;
export const opAdd = 8;
export const opEmbed = 9;
export const opTopK = 10;
export const opPack = 11;
export const opReadBytes = 12;
