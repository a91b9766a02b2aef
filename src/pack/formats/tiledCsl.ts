import { f32FromBf16 } from "../../tensor/index.js";
import { DenseChunk, damaged, type SparseFormat, type SparsePacker, valueTypes } from "./sparseFormat.js";
import { anywhere } from "./structure.js";

const id = "tiled-csl-bf16";
/** Shape of a tile. */
const [tileRows, tileCols] = [128, 64];
const type = valueTypes.bf16;

/** Where a weight lies in its tile. The exclusive or spreads columns over the banks of a GPU's shared memory. */
const locationOf = (row: number, col: number) => row * tileCols + (col ^ ((row & 7) << 3));

/**
 * Tiled-CSL of Flash-LLM (Xia et al., VLDB 2023), for 128 × 64 tiles in row-major order:
 *
 *   u32 [tiles + 2]   where each tile begins, in fours of words; then the end, twice, so that a reader may look one tile ahead
 *   u32 words         bf16 value in the low half, location in the tile in the high half
 *
 * A tile is filled up to whole fours with words of value 0 whose location is not that of a weight. Rows and inputs are padded
 * to whole tiles. It is meant for matrix units, which want the next tile scattered into a second buffer while they multiply
 * the first. A CPU has neither: its words are used where they lie, and what reads ahead is the processor itself, because the
 * words of all tiles of 64 inputs are runs it can foresee.
 */
const layout = (rows: number, cols: number) => {
  const [down, across] = [Math.ceil(rows / tileRows), Math.ceil(cols / tileCols)];
  return { down, across, tiles: down * across, dataAt: (down * across + 2) * 4 };
};

const packer = (rows: number, cols: number): SparsePacker => {
  const { across, tiles, dataAt } = layout(rows, cols);
  const counts = new Uint32Array(tiles);
  /** Where the next word of a tile goes, once all are measured. */
  let cursors: Uint32Array | undefined;
  const starts = new Uint32Array(tiles + 2);
  const free = new Int32Array(tiles).fill(-1);
  const place = (): Uint32Array => {
    for (let t = 0; t < tiles; t++) starts[t + 1] = starts[t] + Math.ceil(counts[t] / 4);
    starts[tiles + 1] = starts[tiles];
    return Uint32Array.from(starts.subarray(0, tiles), (fours) => dataAt + fours * 16);
  };
  /** The tile that a row of input c lies in, with that tile's first row and where its rows, or the given ones, end. */
  const piece = (row: number, rowEnd: number, c: number) => {
    const down = Math.floor(row / tileRows);
    const firstRow = down * tileRows;
    return { tile: down * across + Math.floor(c / tileCols), firstRow, end: Math.min(rowEnd, firstRow + tileRows) };
  };
  return {
    measure(chunk, start, count) {
      const dense = new DenseChunk(chunk, count, type);
      for (let c = 0; c < across * tileCols; c++) {
        const codes = c < cols ? dense.column(c) : undefined;
        for (let begin = 0; begin < dense.rows; ) {
          const { tile, firstRow, end } = piece(start + begin, start + dense.rows, c);
          let nonZeros = 0;
          if (codes !== undefined) {
            for (let r = begin; r < end - start; r++) nonZeros += (codes[r] + 0xffff) >>> 16;
          }
          counts[tile] += nonZeros;
          for (let row = start + begin; free[tile] < 0 && row < Math.min(end, rows); row++) {
            if (codes === undefined || codes[row - start] === 0) free[tile] = locationOf(row - firstRow, c % tileCols);
          }
          begin = end - start;
        }
      }
    },
    get byteLength() {
      cursors ??= place();
      return dataAt + starts[tiles] * 16;
    },
    write(chunk, start, count, into) {
      cursors ??= place();
      if (start === 0) into.set(new Uint8Array(starts.buffer));
      const word = (at: number, code: number, location: number) => {
        into[at] = code;
        into[at + 1] = code >> 8;
        into[at + 2] = location;
        into[at + 3] = location >> 8;
      };
      const dense = new DenseChunk(chunk, count, type);
      for (let c = 0; c < cols; c++) {
        const codes = dense.column(c);
        for (let begin = 0; begin < count; ) {
          const { tile, firstRow, end } = piece(start + begin, start + count, c);
          let at = cursors[tile];
          for (let r = begin; r < end - start; r++) {
            if (codes[r] === 0) continue;
            word(at, codes[r], locationOf(start + r - firstRow, c % tileCols));
            at += 4;
          }
          cursors[tile] = at;
          begin = end - start;
        }
      }
      if (start + count < rows) return;
      // A tile that needs filling up has a free place: a full one has 8192 weights, whole fours.
      for (let t = 0; t < tiles; t++) {
        for (; cursors[t] < dataAt + starts[t + 1] * 16; cursors[t] += 4) {
          word(cursors[t], 0, free[t] >= 0 ? free[t] : locationOf(tileRows - 1, tileCols - 1));
        }
      }
    },
  };
};

export const tiledCslBf16: SparseFormat = {
  id,
  structure: "tiled-csl",
  pattern: anywhere,
  timedAt: [0.02, 0.1],
  value: "bf16",
  packer,

  unpack(bytes, rows, cols) {
    const { across, tiles, dataAt } = layout(rows, cols);
    const fail = (problem: string, expected?: string) => damaged(id, rows, cols, problem, expected);
    if (bytes.byteLength < dataAt) throw fail(`${bytes.byteLength} bytes`, `at least ${dataAt}`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const start = (t: number) => view.getUint32(t * 4, true);
    const whole = dataAt + start(tiles) * 16;
    if (start(tiles + 1) !== start(tiles)) throw fail("the two ends differ");
    if (whole !== bytes.byteLength) throw fail(`${bytes.byteLength} bytes`, `${whole}`);
    if (start(0) !== 0) throw fail(`the first tile begins at ${start(0)}`, "0");
    const out = new Float32Array(rows * cols);
    const seen = new Uint8Array(tileRows * tileCols);
    for (let t = 0; t < tiles; t++) {
      if (start(t + 1) < start(t) || start(t + 1) > start(tiles)) throw fail(`tile ${t} ends at ${start(t + 1)}`);
      seen.fill(0);
      for (let at = dataAt + start(t) * 16; at < dataAt + start(t + 1) * 16; at += 4) {
        const [code, location] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
        if (location >= tileRows * tileCols) throw fail(`tile ${t} has location ${location}`);
        if ((code & 0x7fff) === 0) continue;
        if (seen[location]++ > 0) throw fail(`tile ${t} has location ${location} twice`);
        const inTile = Math.floor(location / tileCols);
        const r = Math.floor(t / across) * tileRows + inTile;
        const c = (t % across) * tileCols + ((location % tileCols) ^ ((inTile & 7) << 3));
        if (r >= rows || c >= cols) throw fail(`row ${r}, input ${c} lies outside and is not 0`);
        out[r * cols + c] = f32FromBf16(code);
      }
    }
    return out;
  },

  bytesRead(bytes, rows, cols, kept) {
    const { across, tiles } = layout(rows, cols);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const wanted = Array.from({ length: across }, (_, a) => {
      for (let c = a * tileCols; c < Math.min((a + 1) * tileCols, cols); c++) if (kept(c)) return true;
      return false;
    });
    let fours = 0;
    for (let t = 0; t < tiles; t++) {
      if (wanted[t % across]) fours += view.getUint32((t + 1) * 4, true) - view.getUint32(t * 4, true);
    }
    return fours * 16;
  },

  expectedBytes(rows, cols, density) {
    const { tiles, dataAt } = layout(rows, cols);
    return dataAt + 4 * rows * cols * density + tiles * 6;
  },
};
