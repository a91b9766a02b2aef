import { type DType, f32FromF16 } from "../../tensor/index.js";
import type { TensorGrid } from "../encoding/index.js";

/**
 * The tensor types of ggml that are read. Blocks run along a row, without padding; numbers are little-endian.
 * Layouts: `ggml-common.h` of llama.cpp.
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
  decode?(bytes: Uint8Array, at: number, out: Float32Array, to: number): void;
  /** Of types whose values are f16 scale · integer; the scale is the first field of the block. */
  grid?: TensorGrid;
}

const half = (bytes: Uint8Array, at: number) => f32FromF16(bytes[at] | (bytes[at + 1] << 8));
const signed = (byte: number) => (byte << 24) >> 24;

const symmetric = (bits: number): TensorGrid => ({ bits, groupSize: 32, symmetric: true, scaleDType: "F16" });

export const ggmlTypes: readonly GgmlType[] = [
  { id: 0, name: "F32", blockSize: 1, blockBytes: 4, dtype: "F32" },
  { id: 1, name: "F16", blockSize: 1, blockBytes: 2, dtype: "F16" },
  { id: 30, name: "BF16", blockSize: 1, blockBytes: 2, dtype: "BF16" },
  {
    // d f16; q int8[32]: x = d · q
    id: 8,
    name: "Q8_0",
    blockSize: 32,
    blockBytes: 34,
    grid: symmetric(8),
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      for (let i = 0; i < 32; i++) out[to + i] = d * signed(bytes[at + 2 + i]);
    },
  },
  {
    // d f16; q u8[16]: byte i holds code i (low) and code i + 16 (high): x = d · (q − 8)
    id: 2,
    name: "Q4_0",
    blockSize: 32,
    blockBytes: 18,
    grid: symmetric(4),
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      for (let i = 0; i < 16; i++) {
        const byte = bytes[at + 2 + i];
        out[to + i] = d * ((byte & 15) - 8);
        out[to + 16 + i] = d * ((byte >> 4) - 8);
      }
    },
  },
  {
    // d f16; dmin f16; 6-bit scales and minima u8[12]; q u8[128]: 8 runs of 32, x = d · scale · q − dmin · minimum
    id: 12,
    name: "Q4_K",
    blockSize: 256,
    blockBytes: 144,
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      const dMin = half(bytes, at + 2);
      for (let run = 0; run < 8; run++) {
        const [scale, minimum] = scaleAndMinimum(bytes, at + 4, run);
        // A byte holds a code of an even run in its low half and one of the odd run after it in its high half.
        const codes = at + 16 + (run >> 1) * 32;
        const shift = (run & 1) * 4;
        for (let i = 0; i < 32; i++) {
          const code = (bytes[codes + i] >> shift) & 15;
          out[to + run * 32 + i] = Math.fround(d * scale) * code - Math.fround(dMin * minimum);
        }
      }
    },
  },
  {
    // low bits u8[128]; high bits u8[64]; scales int8[16]; d f16: x = d · scale · (q − 32), 16 entries a scale
    id: 14,
    name: "Q6_K",
    blockSize: 256,
    blockBytes: 210,
    decode(bytes, at, out, to) {
      const d = half(bytes, at + 208);
      for (let i = 0; i < 256; i++) {
        const [within, quarter, part] = [i & 31, (i >> 5) & 3, i >> 7];
        const low = (bytes[at + part * 64 + (quarter & 1) * 32 + within] >> ((quarter >> 1) * 4)) & 15;
        const high = (bytes[at + 128 + part * 32 + within] >> (quarter * 2)) & 3;
        const scale = signed(bytes[at + 192 + (i >> 4)]);
        out[to + i] = Math.fround(d * scale) * ((low | (high << 4)) - 32);
      }
    },
  },
];

/** The 6-bit scale and minimum of one of the eight runs of a Q4_K block, packed into 12 bytes. */
function scaleAndMinimum(bytes: Uint8Array, at: number, run: number): [number, number] {
  if (run < 4) return [bytes[at + run] & 63, bytes[at + run + 4] & 63];
  const low = bytes[at + run + 4];
  return [(low & 15) | ((bytes[at + run - 4] >> 6) << 4), (low >> 4) | ((bytes[at + run] >> 6) << 4)];
}

export const ggmlTypeById: ReadonlyMap<number, GgmlType> = new Map(ggmlTypes.map((type) => [type.id, type]));
export const ggmlTypeByName: ReadonlyMap<string, GgmlType> = new Map(ggmlTypes.map((type) => [type.name, type]));
