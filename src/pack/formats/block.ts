import { f32FromBf16 } from "../../tensor/index.js";

const structure = { structure: "block", pattern: inBlocks, timedAt: [0.25, 0.75] } as const;

import { groupSize, padded, type SparseFormatId } from "../format.js";
import { interleaved8 } from "./dense.js";
import {
  DenseChunk,
  damaged,
  type SparseFormat,
  type SparsePacker,
  type ValueType,
  valueTypes,
} from "./sparseFormat.js";
import { inBlocks } from "./structure.js";

/** Blocks are 32 rows × 32 inputs, the inputs that share scales. */
const blockRows = 32;

/**
 * Block-sparse: blocks of 32 × 32 of which any weight is not 0, whole.
 *
 *   u32 [groups of 32 inputs + 1]   where each group begins in the data, and where the last ends
 *   data, per group:
 *     u32 [⌈rows / 1024⌉]           bit b of word w: the block of rows from 32 · (32 · w + b) on is present
 *     bf16 [present rows]           scales, in the order of `interleaved8` (q8)
 *     codes [32 inputs][present rows] as the dense format holds them
 *
 * A group is a dense group of fewer rows, so the dense kernels multiply it.
 */
function block(id: SparseFormatId, type: ValueType): SparseFormat {
  const rowBytes = type.bits / 8;
  const layout = (rows: number, cols: number) => {
    const blocks = padded(rows) / blockRows;
    const groups = Math.ceil(cols / groupSize);
    return { blocks, groups, maskBytes: Math.ceil(blocks / 32) * 4, dataAt: (groups + 1) * 4 };
  };
  const blockBytes = blockRows * ((type.hasScales ? 2 : 0) + groupSize * rowBytes);
  /** Where row r of a 32-row block lies among its codes. */
  const place = (r: number) => (type.bits === 16 ? interleaved8(r) : r);

  const packer = (rows: number, cols: number): SparsePacker => {
    const { blocks, groups, maskBytes, dataAt } = layout(rows, cols);
    const present = new Uint8Array(groups * blocks);
    let starts: Uint32Array | undefined;
    const countOf = (group: number, upTo = blocks) => {
      let count = 0;
      for (let b = 0; b < upTo; b++) count += present[group * blocks + b];
      return count;
    };
    const place_ = (): Uint32Array => {
      const at = new Uint32Array(groups + 1);
      for (let g = 0; g < groups; g++) at[g + 1] = at[g] + maskBytes + countOf(g) * blockBytes;
      return at;
    };
    return {
      measure(chunk, start, count) {
        const dense = new DenseChunk(chunk, count, type);
        const nonZeros = new Uint8Array(dense.rows / blockRows);
        for (let c = 0; c < cols; c++) {
          dense.countColumn(c, nonZeros);
          const first = Math.floor(c / groupSize) * blocks + start / blockRows;
          for (let b = 0; b < nonZeros.length; b++) if (nonZeros[b] > 0) present[first + b] = 1;
        }
      },
      get byteLength() {
        starts ??= place_();
        return dataAt + starts[groups];
      },
      write(chunk, start, count, into) {
        starts ??= place_();
        if (start === 0) into.set(new Uint8Array(starts.buffer));
        const dense = new DenseChunk(chunk, count, type);
        for (let g = 0; g < groups; g++) {
          const mask = dataAt + starts[g];
          const presentRows = countOf(g) * blockRows;
          const scales = mask + maskBytes;
          const codesAt = scales + (type.hasScales ? presentRows * 2 : 0);
          const before = countOf(g, start / blockRows);
          let at = before * blockRows;
          for (let r = 0; r < padded(count); r += blockRows) {
            const b = (start + r) / blockRows;
            if (present[g * blocks + b] === 0) continue;
            into[mask + (b >> 3)] |= 1 << (b & 7);
            if (type.hasScales) into.set(dense.scales(g).subarray(2 * r, 2 * (r + blockRows)), scales + 2 * at);
            at += blockRows;
          }
          for (let i = 0; i < groupSize; i++) {
            const c = g * groupSize + i;
            const codes = c < cols ? dense.column(c) : undefined;
            at = codesAt + (i * presentRows + before * blockRows) * rowBytes;
            for (let r = 0; r < padded(count); r += blockRows) {
              if (present[g * blocks + (start + r) / blockRows] === 0) continue;
              for (let k = 0; k < blockRows; k++) {
                const code = codes === undefined ? type.zero : codes[r + k];
                const target = at + place(k) * rowBytes;
                into[target] = code;
                if (type.bits === 16) into[target + 1] = code >> 8;
              }
              at += blockRows * rowBytes;
            }
          }
        }
      },
    };
  };

  /** The blocks of one group. @throws FormatError */
  const readGroup = (bytes: Uint8Array, rows: number, cols: number, g: number) => {
    const { blocks, groups, maskBytes, dataAt } = layout(rows, cols);
    const fail = (problem: string, expected?: string) => damaged(id, rows, cols, problem, expected);
    if (bytes.byteLength < dataAt) throw fail(`${bytes.byteLength} bytes`, `at least ${dataAt}`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const [begin, end] = [view.getUint32(g * 4, true), view.getUint32((g + 1) * 4, true)];
    const whole = dataAt + view.getUint32(groups * 4, true);
    if (whole !== bytes.byteLength) throw fail(`${bytes.byteLength} bytes`, `${whole}`);
    if (g === 0 && begin !== 0) throw fail(`the first group begins at ${begin}`, "0");
    if (end < begin + maskBytes || dataAt + end > bytes.byteLength) throw fail(`group ${g} from ${begin} to ${end}`);
    const mask = dataAt + begin;
    const present = Array.from({ length: maskBytes * 8 }, (_, b) => b).filter(
      (b) => (bytes[mask + (b >> 3)] >> (b & 7)) & 1,
    );
    if (present.some((b) => b >= blocks)) throw fail(`group ${g} has blocks beyond the last row`);
    const expected = maskBytes + present.length * blockBytes;
    if (end - begin !== expected) throw fail(`group ${g} has ${end - begin} bytes`, `${expected}`);
    return { view, present, scales: mask + maskBytes, size: end - begin };
  };

  return {
    id,
    ...structure,
    value: type.id,
    packer,

    unpack(bytes, rows, cols) {
      const out = new Float32Array(rows * cols);
      for (let g = 0; g < layout(rows, cols).groups; g++) {
        const { view, present, scales } = readGroup(bytes, rows, cols, g);
        const presentRows = present.length * blockRows;
        const codes = scales + (type.hasScales ? presentRows * 2 : 0);
        for (const [n, b] of present.entries()) {
          for (let i = 0; i < groupSize; i++) {
            for (let k = 0; k < blockRows; k++) {
              const [r, c] = [b * blockRows + k, g * groupSize + i];
              const at = codes + (i * presentRows + n * blockRows + place(k)) * rowBytes;
              const code = type.bits === 16 ? view.getUint16(at, true) : bytes[at];
              if (r >= rows || c >= cols) {
                if (code !== type.zero) throw damaged(id, rows, cols, `row ${r}, input ${c} lies outside and is not 0`);
              } else if (type.bits === 16) out[r * cols + c] = f32FromBf16(code);
              else {
                const scale = f32FromBf16(view.getUint16(scales + (n * blockRows + interleaved8(k)) * 2, true));
                out[r * cols + c] = (code - type.zero) * scale;
              }
            }
          }
        }
      }
      return out;
    },

    bytesRead(bytes, rows, cols, kept) {
      const { groups, maskBytes } = layout(rows, cols);
      let total = 0;
      for (let g = 0; g < groups; g++) {
        let inputs = 0;
        for (let c = g * groupSize; c < Math.min((g + 1) * groupSize, cols); c++) if (kept(c)) inputs++;
        if (inputs === 0) continue;
        const { present } = readGroup(bytes, rows, cols, g);
        const presentRows = present.length * blockRows;
        total += maskBytes + presentRows * ((type.hasScales ? 2 : 0) + inputs * rowBytes);
      }
      return total;
    },

    /** @param density share of blocks that are present */
    expectedBytes(rows, cols, density) {
      const { blocks, groups, maskBytes, dataAt } = layout(rows, cols);
      return dataAt + groups * (maskBytes + blocks * density * blockBytes);
    },
  };
}

export const blockBf16 = block("block-bf16", valueTypes.bf16);
export const blockQ8 = block("block-q8", valueTypes.q8);
