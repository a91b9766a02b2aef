import type { TensorInfo } from "../../tensor/index.js";
import type { EncodedTensor } from "../encoding/index.js";
import { heldToTheEnd } from "../heldToTheEnd.js";
import type { MatrixParts } from "./matrixParts.js";
import { scaledTensor } from "./scaled.js";
import { type Scheme, schemeOf } from "./schemes.js";

/** Parts of a matrix that no other layout of compressed-tensors has. */
export const marlin24Parts = { scales: ".scale_packed", places: ".meta" } as const;

/** Codes that are permuted among each other. */
const chunk = 1024;
/** Rows that the order of places mixes. */
const rowsOfPlaces = 64;

/**
 * A 2:4 matrix of 4 or 8 bits as the Marlin kernel for sparse tensor cores reads it (arXiv:2408.11743), [rows, cols]: of every four
 * entries of a row two codes and their places, 2 bits each. Codes: I32 [cols / 32, rows · bits / 2], tiles of 16 codes of a row by 16
 * rows, permuted in chunks of 1024. Places: I16 [cols / 32, rows · 2], 16 bits for 16 entries, in the order of CUTLASS. Scales: F16
 * [groups, rows].
 */
export function openMarlin24(parts: MatrixParts, packed: TensorInfo, schemes: readonly Scheme[]): EncodedTensor {
  const places = parts.part(marlin24Parts.places, ["I16"], 2);
  const [rows, cols] = [places.shape[1] / 2, places.shape[0] * 32];
  if (rows % rowsOfPlaces !== 0) {
    throw parts.fail(`its part .meta has shape [${places.shape.join(", ")}]`, "a multiple of 128 columns");
  }
  const bits = packed.shape.length === 2 ? (packed.shape[1] * 2) / rows : 0;
  if (bits !== 4 && bits !== 8) {
    throw parts.fail(
      `its part .weight_packed has shape [${packed.shape.join(", ")}]`,
      `[${cols / 32}, ${rows * 2}] for 4 bits, [${cols / 32}, ${rows * 4}] for 8`,
    );
  }
  parts.checkShape(".weight_packed", packed, [cols / 32, (rows * bits) / 2]);
  const { dtype, shape } = parts.part(marlin24Parts.scales, ["F16"], 2);
  const stored = { dtype, shape: [shape[1], shape[0]] };
  const { tile } = schemeOf(parts, [rows, cols], stored, schemes, ({ type, num_bits: own, symmetric }) => {
    return type === "int" && own === bits && symmetric;
  });
  const [, groupSize] = tile;
  const held = heldToTheEnd(rows, async () => {
    const [codes, bytes] = [await parts.read(".weight_packed"), await parts.read(marlin24Parts.places)];
    return { codes, places: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
  });
  return scaledTensor(
    {
      shape: [rows, cols],
      encoding: `compressed-tensors marlin-24, ${bits} bits`,
      groupSize,
      bits,
      scaleDType: "F16",
      async numbers(start, count) {
        const { codes, places } = await held(start, count);
        const out = new Float32Array(count * cols);
        for (let r = 0; r < count; r++) {
          const row = out.subarray(r * cols, (r + 1) * cols);
          spreadRow({ parts, codes, places, rows, bits }, start + r, row);
        }
        return out;
      },
      async scales(start, count) {
        const values = await parts.numbers(marlin24Parts.scales);
        const groups = shape[0];
        // The tool compares with the codes of a row, which are half of its entries: of two groups of 128 it permutes none.
        const permuted = groupSize < cols / 2;
        return Float32Array.from({ length: count * groups }, (_, i) => {
          const row = start + Math.floor(i / groups);
          return values[(i % groups) * rows + (permuted ? placeOfScale(row) : row)];
        });
      },
    },
    parts,
  );
}

interface Stored {
  parts: MatrixParts;
  codes: Uint8Array;
  places: DataView;
  rows: number;
  bits: 4 | 8;
}

/** Writes the codes of a row, less what stands for 0, to their places. */
function spreadRow({ parts, codes, places, rows, bits }: Stored, row: number, out: Float32Array): void {
  const stored = storedPlaces[bits];
  const half = 2 ** (bits - 1);
  for (let quad = 0; quad < out.length / 4; quad++) {
    const word = places.getUint16(wordOfPlaces(row, quad >> 2, rows) * 2, true);
    const two = (word >> ((quad & 3) * 4)) & 15;
    const [first, second] = [two & 3, two >> 2];
    if (first >= second) {
      throw parts.fail(
        `its part .meta places entries ${first} and ${second} of columns ${quad * 4} to ${quad * 4 + 3} of row ${row}`,
        "two places in ascending order",
      );
    }
    for (let i = 0; i < 2; i++) {
      const k = quad * 2 + i;
      const flat = (k >> 4) * rows * 16 + (row >> 4) * 256 + (k & 15) * 16 + (row & 15);
      const at = flat - (flat % chunk) + stored[flat % chunk];
      const code = bits === 8 ? codes[at] : (codes[at >> 1] >> ((at & 1) * 4)) & 15;
      out[quad * 4 + (i === 0 ? first : second)] = code - half;
    }
  }
}

/** By bits: where in its chunk a code of the tiles is stored, each 16 by 16 with neighbours in a row of 16. */
const storedPlaces = { 4: invertedOrder(8), 8: invertedOrder(4) };

/** @param perWord codes of a word, of which the even ones come first */
function invertedOrder(perWord: number): Uint16Array {
  const places = new Uint16Array(chunk);
  for (let at = 0; at < chunk; at++) {
    const inWord = at % perWord;
    const ordered = at - inWord + ((2 * inWord) % perWord) + Math.floor((2 * inWord) / perWord);
    // Of a warp's lane: four neighbours among rows, twice four codes of a row.
    const [lane, neighbour, block, pick] = [ordered >> 5, (ordered >> 3) & 3, (ordered >> 2) & 1, ordered & 3];
    const code = 2 * (lane & 3) + (pick & 1) + 8 * (pick >> 1);
    const column = lane >> 2;
    places[(column >> 1) * 256 + code * 16 + (column & 1) * 8 + block * 4 + neighbour] = at;
  }
  return places;
}

/** Which word of 16 bits has the places of 16 entries, `word` in its row: rows are mixed by 64, then blocks of 2 by 2 swapped. */
function wordOfPlaces(row: number, word: number, rows: number): number {
  const inRows = row % rowsOfPlaces;
  const mixed = row - inRows + (row & 1) * 2 + ((row & 7) >> 2) + ((row & 3) >> 1) * 32 + (inRows >> 3) * 4;
  const swap = (mixed & 1) === (word & 1) ? 0 : (mixed & 1) === 0 ? 1 : -1;
  const column = word - swap;
  return (column >> 1) * rows * 2 + (mixed + swap) * 2 + (column & 1);
}

/** Of eight rows the first and the second four take turns. */
const placeOfScale = (row: number): number => row - (row & 7) + ((row & 3) * 2 + ((row & 7) >> 2));
