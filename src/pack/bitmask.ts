import { f32FromBf16 } from "../tensor/index.js";
import { interleaved8 } from "./dense.js";
import { groupSize, padded, type SparseFormatId } from "./format.js";
import {
  DenseChunk,
  damaged,
  type SparseFormat,
  type SparsePacker,
  type ValueType,
  valueTypes,
} from "./sparseFormat.js";

/** Rows between two entries of the table of positions: from one of them a product can begin. */
export const tileRows = 512;

/** Rows of one mask. */
const blockRows = 32;

/**
 * Bit mask and the codes that are not 0, for any pattern.
 *
 *   u32 [cols · tiles + 1]             where each tile of 512 rows of each input begins in the data, and where the last ends
 *   bf16 [groups of 32 inputs][rows]   scales, in the order of `interleaved8` (q8 and q4)
 *   data: input after input, for every 32 rows a u32 mask (bit r: row r is not 0) and the codes of the rows whose bit is
 *   set, ascending: u16; i8, the code less 128; or u4 with the earlier one in the low half and an odd last one in a byte of
 *   its own.
 *
 * Rows are padded to 32. Mask and codes lie together so that a product reads one stream for each input.
 */
function bitmask(id: SparseFormatId, type: ValueType): SparseFormat {
  const codeBytes = (count: number) => (type.bits === 4 ? (count + 1) >> 1 : (count * type.bits) / 8);
  const layout = (rows: number, cols: number) => {
    const paddedRows = padded(rows);
    const tiles = Math.ceil(paddedRows / tileRows);
    const scalesAt = (cols * tiles + 1) * 4;
    const groups = Math.ceil(cols / groupSize);
    const scaleBytes = type.hasScales ? paddedRows * 2 : 0;
    return { paddedRows, tiles, scalesAt, scaleBytes, dataAt: scalesAt + groups * scaleBytes };
  };

  const packer = (rows: number, cols: number): SparsePacker => {
    const { tiles, scalesAt, scaleBytes, dataAt } = layout(rows, cols);
    // Bytes of every tile while measuring, positions afterwards.
    const table = new Uint32Array(cols * tiles + 1);
    let cursors: Uint32Array | undefined;

    /** Turns sizes into positions. */
    const place = (): Uint32Array => {
      let at = 0;
      for (let i = 0; i < table.length; i++) {
        const size = table[i];
        table[i] = at;
        at += size;
      }
      return Uint32Array.from({ length: cols }, (_, c) => table[c * tiles]);
    };

    return {
      measure(chunk, start, count) {
        const dense = new DenseChunk(chunk, count, type);
        for (let c = 0; c < cols; c++) {
          const codes = dense.column(c);
          for (let r = 0; r < codes.length; r += blockRows) {
            let nonZeros = 0;
            for (let k = r; k < r + blockRows; k++) if (codes[k] !== type.zero) nonZeros++;
            table[c * tiles + Math.floor((start + r) / tileRows)] += 4 + codeBytes(nonZeros);
          }
        }
      },
      get byteLength() {
        cursors ??= place();
        return dataAt + table[cols * tiles];
      },
      write(chunk, start, count, into) {
        cursors ??= place();
        if (start === 0) into.set(new Uint8Array(table.buffer));
        const dense = new DenseChunk(chunk, count, type);
        for (let c = 0; c < cols; c++) {
          if (type.hasScales && c % groupSize === 0) {
            const group = c / groupSize;
            into.set(dense.scales(group), scalesAt + group * scaleBytes + start * 2);
          }
          const codes = dense.column(c);
          let at = dataAt + cursors[c];
          for (let r = 0; r < codes.length; r += blockRows) at = writeBlock(codes, r, into, at, type);
          cursors[c] = at - dataAt;
        }
      },
    };
  };

  const format: SparseFormat = {
    id,
    value: type.id,
    packer,

    unpack(bytes, rows, cols) {
      const { paddedRows, tiles, scalesAt, scaleBytes, dataAt } = layout(rows, cols);
      const fail = (problem: string, expected?: string) => damaged(id, rows, cols, problem, expected);
      if (bytes.byteLength < dataAt) throw fail(`${bytes.byteLength} bytes`, `at least ${dataAt}`);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const end = view.getUint32(cols * tiles * 4, true);
      if (dataAt + end !== bytes.byteLength) throw fail(`${bytes.byteLength} bytes`, `${dataAt + end}`);
      const out = new Float32Array(rows * cols);
      let at = dataAt;
      for (let c = 0; c < cols; c++) {
        const scales = scalesAt + Math.floor(c / groupSize) * scaleBytes;
        for (let block = 0; block < paddedRows; block += blockRows) {
          if (block % tileRows === 0) {
            const position = view.getUint32((c * tiles + block / tileRows) * 4, true);
            if (dataAt + position !== at) throw fail(`a tile of input ${c} begins at ${position}`, `${at - dataAt}`);
          }
          if (at + 4 > bytes.byteLength) throw fail(`the data end within input ${c}`);
          const mask = view.getUint32(at, true);
          at += 4;
          const count = popcount(mask);
          if (at + codeBytes(count) > bytes.byteLength) throw fail(`the data end within input ${c}`);
          for (let k = 0, n = 0; k < blockRows; k++) {
            if (((mask >>> k) & 1) === 0) continue;
            const r = block + k;
            if (r >= rows) throw fail(`input ${c} has weights beyond the last row`);
            if (type.bits === 16) out[r * cols + c] = f32FromBf16(view.getUint16(at + 2 * n, true));
            else {
              const code = type.bits === 8 ? bytes[at + n] ^ 0x80 : (bytes[at + (n >> 1)] >> ((n & 1) * 4)) & 15;
              out[r * cols + c] = (code - type.zero) * f32FromBf16(view.getUint16(scales + interleaved8(r) * 2, true));
            }
            n++;
          }
          at += codeBytes(count);
        }
      }
      return out;
    },

    bytesRead(bytes, rows, cols, kept) {
      const { tiles, scaleBytes } = layout(rows, cols);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      let total = 0;
      let lastGroup = -1;
      for (let c = 0; c < cols; c++) {
        if (!kept(c)) continue;
        total += view.getUint32((c + 1) * tiles * 4, true) - view.getUint32(c * tiles * 4, true);
        const group = Math.floor(c / groupSize);
        if (group !== lastGroup) total += scaleBytes;
        lastGroup = group;
      }
      return total;
    },

    expectedBytes(rows, cols, density) {
      const { paddedRows, dataAt } = layout(rows, cols);
      // Half of the blocks end with an odd u4.
      const oddBytes = type.bits === 4 ? (paddedRows / blockRows) * 0.25 * cols : 0;
      return dataAt + (paddedRows / 8) * cols + (rows * cols * density * type.bits) / 8 + oddBytes;
    },
  };
  return format;
}

/** Writes mask and codes of 32 rows; returns where the next begin. */
function writeBlock(codes: Uint16Array, first: number, into: Uint8Array, at: number, type: ValueType): number {
  let mask = 0;
  let next = at + 4;
  let half = false;
  for (let k = 0; k < blockRows; k++) {
    const code = codes[first + k];
    if (code === type.zero) continue;
    mask |= 1 << k;
    if (type.bits === 16) {
      into[next] = code;
      into[next + 1] = code >> 8;
      next += 2;
    } else if (type.bits === 8) into[next++] = code ^ 0x80;
    else if (half) into[next - 1] |= code << 4;
    else into[next++] = code;
    half = !half;
  }
  into[at] = mask;
  into[at + 1] = mask >>> 8;
  into[at + 2] = mask >>> 16;
  into[at + 3] = mask >>> 24;
  return next;
}

export function popcount(mask: number): number {
  let pairs = mask - ((mask >>> 1) & 0x55555555);
  pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

export const bitmaskBf16 = bitmask("bitmask-bf16", valueTypes.bf16);
export const bitmaskQ8 = bitmask("bitmask-q8", valueTypes.q8);
export const bitmaskQ4 = bitmask("bitmask-q4", valueTypes.q4);
