import { blockRows, columnRuns, type RunCodec } from "./columnRuns.js";
import { valueTypes } from "./sparseFormat.js";
import { anywhere } from "./structure.js";

/**
 * Compressed sparse rows of the transpose: for every weight that is not 0 a u32 with its row in the tile of 512 in the low
 * half and its bf16 value in the high half, rows ascending. Smaller and faster than a bit mask where hardly anything is left.
 */
const words: RunCodec = {
  blockBytes: (nonZeros) => 4 * nonZeros,
  expectedBlockBytes: (density) => 4 * blockRows * density,

  write(codes, first, rowInTile, into, at) {
    let next = at;
    for (let k = 0; k < blockRows; k++) {
      const code = codes[first + k];
      if (code === 0) continue;
      const row = rowInTile + k;
      into[next] = row;
      into[next + 1] = row >> 8;
      into[next + 2] = code;
      into[next + 3] = code >> 8;
      next += 4;
    }
    return next;
  },

  read(bytes, at, end, rows, use) {
    if ((end - at) % 4 !== 0) return `${end - at} bytes are no whole words`;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let before = -1;
    for (let next = at; next < end; next += 4) {
      const row = view.getUint16(next, true);
      if (row <= before || row >= rows) return `row ${row} after row ${before}`;
      use(row, view.getUint16(next + 2, true));
      before = row;
    }
    return undefined;
  },
};

export const csrBf16 = columnRuns(
  { id: "csr-bf16", structure: "csr", pattern: anywhere, timedAt: [0.02, 0.1] },
  valueTypes.bf16,
  words,
);
