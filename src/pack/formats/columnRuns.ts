import { f32FromBf16 } from "../../tensor/index.js";
import { groupSize, padded } from "../format.js";
import { interleaved8 } from "./dense.js";
import {
  DenseChunk,
  damaged,
  type SparseDescription,
  type SparseFormat,
  type SparsePacker,
  type ValueType,
} from "./sparseFormat.js";

/** Rows between two entries of the table of positions: from one of them a product can begin. */
export const tileRows = 512;

/** Rows that a codec is given at a time. */
export const blockRows = 32;

const tileBlocks = tileRows / blockRows;

/** How the codes of one input that are not 0 are written. */
export interface RunCodec {
  /** Bytes of 32 rows. */
  blockBytes(nonZeros: number): number;
  /** Writes rows [first, first + 32) of `codes`, which are rows from `rowInTile` on; returns where the next begin. */
  write(codes: Uint16Array, first: number, rowInTile: number, into: Uint8Array, at: number): number;
  /**
   * Reads a tile of `rows` rows between `at` and `end` and gives each code to `use` with its row in the tile.
   * @returns what is wrong with it, or undefined
   */
  read(
    bytes: Uint8Array,
    at: number,
    end: number,
    rows: number,
    use: (row: number, code: number) => void,
  ): string | undefined;
  /** Bytes of 32 rows to expect at a share of non-zeros. */
  expectedBlockBytes(density: number): number;
}

/**
 * Input after input the codes that are not 0, as a codec writes them, with a table of where each begins:
 *
 *   u32 [cols · tiles + 1]             where each tile of 512 rows of each input begins in the data, and where the last ends
 *   bf16 [groups of 32 inputs][rows]   scales, in the order of `interleaved8` (q8 and q4)
 *   data
 *
 * Rows are padded to 32.
 */
export function columnRuns(description: SparseDescription, type: ValueType, codec: RunCodec): SparseFormat {
  const { id } = description;
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
        const nonZeros = new Uint8Array(dense.rows / blockRows);
        for (let c = 0; c < cols; c++) {
          dense.countColumn(c, nonZeros);
          for (let b = 0, block = start / blockRows; b < nonZeros.length; b++, block++) {
            table[c * tiles + Math.floor(block / tileBlocks)] += codec.blockBytes(nonZeros[b]);
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
          for (let r = 0; r < codes.length; r += blockRows) {
            at = codec.write(codes, r, (start + r) % tileRows, into, at);
          }
          cursors[c] = at - dataAt;
        }
      },
    };
  };

  const format: SparseFormat = {
    ...description,
    value: type.id,
    packer,

    unpack(bytes, rows, cols) {
      const { paddedRows, tiles, scalesAt, scaleBytes, dataAt } = layout(rows, cols);
      const fail = (problem: string, expected?: string) => damaged(id, rows, cols, problem, expected);
      if (bytes.byteLength < dataAt) throw fail(`${bytes.byteLength} bytes`, `at least ${dataAt}`);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const end = view.getUint32(cols * tiles * 4, true);
      if (dataAt + end !== bytes.byteLength) throw fail(`${bytes.byteLength} bytes`, `${dataAt + end}`);
      const position = (i: number) => view.getUint32(i * 4, true);
      const out = new Float32Array(rows * cols);
      if (position(0) !== 0) throw fail(`the first tile begins at ${position(0)}`, "0");
      for (let i = 0; i < cols * tiles; i++) {
        const c = Math.floor(i / tiles);
        const firstRow = (i % tiles) * tileRows;
        if (position(i + 1) < position(i) || position(i + 1) > end) {
          throw fail(`a tile of input ${c} ends at ${position(i + 1)}`, `between ${position(i)} and ${end}`);
        }
        const scales = scalesAt + Math.floor(c / groupSize) * scaleBytes;
        const tile = Math.min(tileRows, paddedRows - firstRow);
        let beyond = false;
        const problem = codec.read(bytes, dataAt + position(i), dataAt + position(i + 1), tile, (row, code) => {
          const r = firstRow + row;
          if (r >= rows) beyond = true;
          else if (!type.hasScales) out[r * cols + c] = f32FromBf16(code);
          else out[r * cols + c] = (code - type.zero) * f32FromBf16(view.getUint16(scales + interleaved8(r) * 2, true));
        });
        if (problem !== undefined) throw fail(`input ${c}, rows from ${firstRow}: ${problem}`);
        if (beyond) throw fail(`input ${c} has weights beyond the last row`);
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
      return dataAt + (paddedRows / blockRows) * cols * codec.expectedBlockBytes(density);
    },
  };
  return format;
}
