import { blockRows, columnRuns, type RunCodec } from "./columnRuns.js";
import { type ValueType, valueTypes } from "./sparseFormat.js";
import { anywhere } from "./structure.js";

/**
 * Bit mask and the codes that are not 0, for any pattern. For every 32 rows a u32 mask (bit r: row r is not 0) and the codes
 * of the rows whose bit is set, ascending: u16; i8, the code less 128; or u4 with the earlier one in the low half and an
 * odd last one in a byte of its own. Mask and codes lie together so that a product reads one stream for each input.
 */
function bitmask({ bits, zero }: ValueType): RunCodec {
  const kept = new Uint16Array(blockRows);
  const codeBytes = (count: number) => (bits === 4 ? (count + 1) >> 1 : (count * bits) / 8);
  return {
    blockBytes: (nonZeros) => 4 + codeBytes(nonZeros),
    // Half of the blocks end with an odd u4.
    expectedBlockBytes: (density) => 4 + (blockRows * density * bits) / 8 + (bits === 4 ? 0.25 : 0),

    write(codes, first, _rowInTile, into, at) {
      // Without a branch on the weight, which no processor foresees.
      let mask = 0;
      let count = 0;
      for (let k = 0; k < blockRows; k++) {
        const code = codes[first + k];
        const isKept = ((code ^ zero) + 0xffff) >>> 16;
        kept[count] = code;
        mask |= isKept << k;
        count += isKept;
      }
      for (let k = 0; k < 4; k++) into[at + k] = mask >>> (8 * k);
      const next = at + 4;
      if (bits === 16) {
        for (let n = 0; n < count; n++) {
          into[next + 2 * n] = kept[n];
          into[next + 2 * n + 1] = kept[n] >> 8;
        }
      } else if (bits === 8) for (let n = 0; n < count; n++) into[next + n] = kept[n] ^ 0x80;
      else {
        kept[count] = 0;
        for (let n = 0; n < count; n += 2) into[next + (n >> 1)] = kept[n] | (kept[n + 1] << 4);
      }
      return next + codeBytes(count);
    },

    read(bytes, at, end, rows, use) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      let next = at;
      for (let block = 0; block < rows; block += blockRows) {
        if (next + 4 > end) return "the masks do not fit";
        const mask = view.getUint32(next, true);
        next += 4;
        const count = popcount(mask);
        if (next + codeBytes(count) > end) return "the codes do not fit";
        for (let k = 0, n = 0; k < blockRows; k++) {
          if (((mask >>> k) & 1) === 0) continue;
          if (bits === 16) use(block + k, view.getUint16(next + 2 * n, true));
          else use(block + k, bits === 8 ? bytes[next + n] ^ 0x80 : (bytes[next + (n >> 1)] >> ((n & 1) * 4)) & 15);
          n++;
        }
        next += codeBytes(count);
      }
      return next === end ? undefined : `${end - next} bytes too many`;
    },
  };
}

function popcount(mask: number): number {
  let pairs = mask - ((mask >>> 1) & 0x55555555);
  pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

const structure = { structure: "bitmask", pattern: anywhere, timedAt: [0.25, 0.5, 0.75] } as const;

export const bitmaskBf16 = columnRuns({ id: "bitmask-bf16", ...structure }, valueTypes.bf16, bitmask(valueTypes.bf16));
export const bitmaskQ8 = columnRuns({ id: "bitmask-q8", ...structure }, valueTypes.q8, bitmask(valueTypes.q8));
export const bitmaskQ4 = columnRuns({ id: "bitmask-q4", ...structure }, valueTypes.q4, bitmask(valueTypes.q4));
