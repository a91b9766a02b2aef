import type { DType } from "../../tensor/index.js";
import type { TensorGrid } from "../encoding/index.js";
import * as blocks from "./blocks.js";

/**
 * The tensor types of ggml that are read. Blocks run along a row, without padding; numbers are little-endian.
 * Layouts: `ggml-common.h` of llama.cpp; what decodes them says them in words.
 */
export interface GgmlType {
  /** Number in the file. */
  id: number;
  name: string;
  /** Entries of a row that a block holds, and its bytes. */
  blockSize: number;
  blockBytes: number;
  /** Plain values of this type; the others are decoded to f32. */
  dtype?: DType;
  /** Decodes the block at byte `at` into out[to … to + blockSize). */
  decode?: blocks.DecodeBlock;
  /** Of types whose values are f16 scale · integer; the scale is the first field of the block. */
  grid?: TensorGrid;
}

const symmetric = (bits: number): TensorGrid => ({ bits, groupSize: 32, symmetric: true, scaleDType: "F16" });

export const ggmlTypes: readonly GgmlType[] = [
  { id: 0, name: "F32", blockSize: 1, blockBytes: 4, dtype: "F32" },
  { id: 1, name: "F16", blockSize: 1, blockBytes: 2, dtype: "F16" },
  { id: 30, name: "BF16", blockSize: 1, blockBytes: 2, dtype: "BF16" },
  { id: 28, name: "F64", blockSize: 1, blockBytes: 8, dtype: "F64" },
  { id: 24, name: "I8", blockSize: 1, blockBytes: 1, dtype: "I8" },
  { id: 25, name: "I16", blockSize: 1, blockBytes: 2, dtype: "I16" },
  { id: 26, name: "I32", blockSize: 1, blockBytes: 4, dtype: "I32" },
  { id: 27, name: "I64", blockSize: 1, blockBytes: 8, dtype: "I64" },
  { id: 2, name: "Q4_0", blockSize: 32, blockBytes: 18, grid: symmetric(4), decode: blocks.q4_0 },
  { id: 3, name: "Q4_1", blockSize: 32, blockBytes: 20, decode: blocks.q4_1 },
  { id: 6, name: "Q5_0", blockSize: 32, blockBytes: 22, decode: blocks.q5_0 },
  { id: 7, name: "Q5_1", blockSize: 32, blockBytes: 24, decode: blocks.q5_1 },
  { id: 8, name: "Q8_0", blockSize: 32, blockBytes: 34, grid: symmetric(8), decode: blocks.q8_0 },
  { id: 9, name: "Q8_1", blockSize: 32, blockBytes: 36, decode: blocks.q8_1 },
  { id: 10, name: "Q2_K", blockSize: 256, blockBytes: 84, decode: blocks.q2K },
  { id: 11, name: "Q3_K", blockSize: 256, blockBytes: 110, decode: blocks.q3K },
  { id: 12, name: "Q4_K", blockSize: 256, blockBytes: 144, decode: blocks.q4K },
  { id: 13, name: "Q5_K", blockSize: 256, blockBytes: 176, decode: blocks.q5K },
  { id: 14, name: "Q6_K", blockSize: 256, blockBytes: 210, decode: blocks.q6K },
  { id: 15, name: "Q8_K", blockSize: 256, blockBytes: 292, decode: blocks.q8K },
  { id: 20, name: "IQ4_NL", blockSize: 32, blockBytes: 18, decode: blocks.iq4Nl },
  { id: 23, name: "IQ4_XS", blockSize: 256, blockBytes: 136, decode: blocks.iq4Xs },
  { id: 34, name: "TQ1_0", blockSize: 256, blockBytes: 54, decode: blocks.tq1_0 },
  { id: 35, name: "TQ2_0", blockSize: 256, blockBytes: 66, decode: blocks.tq2_0 },
  { id: 39, name: "MXFP4", blockSize: 32, blockBytes: 17, decode: blocks.mxfp4 },
];

/** Types that are known by name and not read: their codes stand for entries of large tables. */
const unread: ReadonlyMap<number, string> = new Map([
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [29, "IQ1_M"],
  [40, "NVFP4"],
]);

/** What a type is called, whether it is read or not. */
export const ggmlTypeName = (id: number): string =>
  ggmlTypeById.get(id)?.name ?? unread.get(id) ?? `number ${id}, which no known version of llama.cpp writes,`;

export const ggmlTypeById: ReadonlyMap<number, GgmlType> = new Map(ggmlTypes.map((type) => [type.id, type]));
export const ggmlTypeByName: ReadonlyMap<string, GgmlType> = new Map(ggmlTypes.map((type) => [type.name, type]));
