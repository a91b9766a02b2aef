import { compressed, putBits, raw, stemOf, toGroups } from "./storeParts.mjs";

/** Which entries of four are kept: the two largest. */
function twoOf(four) {
  const order = [0, 1, 2, 3].sort((a, b) => Math.abs(four[b]) - Math.abs(four[a]));
  return order.slice(0, 2).sort((a, b) => a - b);
}

/** Of 1024 codes in tiles, the ones that are stored one after another. */
function permutation(bits) {
  const interleave = bits === 4 ? [0, 2, 4, 6, 1, 3, 5, 7] : [0, 2, 1, 3];
  const order = [];
  for (let lane = 0; lane < 32; lane++) {
    const column = Math.floor(lane / 4);
    for (let j = 0; j < 4; j++) {
      for (const block of [0, 4]) {
        for (const row of [0, 1, 8, 9]) {
          order.push(16 * (row + 2 * (lane % 4)) + 256 * Math.floor(column / 2) + 8 * (column % 2) + block + j);
        }
      }
    }
  }
  return order.map((_, i) => order[i - (i % interleave.length) + interleave[i % interleave.length]]);
}

/** CUTLASS's order of the words of places: of [rows, words]. */
function orderedPlaces(words, rows, wordsOfRow) {
  const out = new Int16Array(words.length);
  for (let r = 0; r < rows; r++) {
    for (let w = 0; w < wordsOfRow; w++) {
      let row = Math.floor(r / 64) * 64 + (r % 2) * 2 + Math.floor((r % 8) / 4);
      row += Math.floor((r % 4) / 2) * 32 + Math.floor((r % 64) / 8) * 4;
      let column = w;
      if (row % 2 === 0 && w % 2 === 1) [row, column] = [row + 1, column - 1];
      else if (row % 2 === 1 && w % 2 === 0) [row, column] = [row - 1, column + 1];
      out[Math.floor(column / 2) * rows * 2 + row * 2 + (column % 2)] = words[r * wordsOfRow + w];
    }
  }
  return out;
}

/**
 * The largest two of each four, as Marlin's kernel for sparse tensor cores reads them. Matrices that its tiles do not fit stay plain.
 * @returns {import("./storeAs.mjs").Store}
 */
export function storeMarlin24({ bits, groupSize }) {
  return {
    shape: [64, 384],
    record: compressed("marlin-24", {
      num_bits: bits,
      type: "int",
      symmetric: true,
      strategy: groupSize < 0 ? "channel" : "group",
      group_size: groupSize < 0 ? null : groupSize,
    }),
    parts(name, { shape, values }) {
      const [rows, cols] = shape;
      if (rows % 64 !== 0 || cols % 32 !== 0 || (groupSize > 0 && cols % groupSize !== 0)) {
        return { expected: values, raw: [raw(name, "F32", shape, values)] };
      }
      const kept = new Float32Array(values.length);
      const two = [];
      for (let at = 0; at < values.length; at += 4) {
        two.push(twoOf(values.subarray(at, at + 4)));
        for (const place of two.at(-1)) kept[at + place] = values[at + place];
      }
      const made = toGroups({ shape, values: kept }, { bits, groupSize, symmetric: true });

      const depth = cols / 2;
      const tiles = new Array(depth * rows);
      const words = new Uint16Array((rows * cols) / 16);
      for (let r = 0; r < rows; r++) {
        for (let quad = 0; quad < cols / 4; quad++) {
          const [first, second] = two[(r * cols) / 4 + quad];
          words[(r * cols) / 16 + Math.floor(quad / 4)] |= (first | (second << 2)) << (4 * (quad % 4));
          for (const [i, place] of [first, second].entries()) {
            const k = quad * 2 + i;
            const tile = Math.floor(k / 16) * (rows / 16) + Math.floor(r / 16);
            tiles[tile * 256 + (k % 16) * 16 + (r % 16)] = made.codes[r][quad * 4 + place];
          }
        }
      }
      const order = permutation(bits);
      const packed = new Int32Array((tiles.length * bits) / 32);
      for (let at = 0; at < tiles.length; at++) {
        putBits(packed, at * bits, tiles[Math.floor(at / 1024) * 1024 + order[at % 1024]], bits);
      }
      const turns = groupSize > 0 && groupSize < depth ? [0, 4, 1, 5, 2, 6, 3, 7] : [0, 1, 2, 3, 4, 5, 6, 7];
      const scales = new Uint16Array(made.groups * rows);
      for (let g = 0; g < made.groups; g++) {
        for (let r = 0; r < rows; r++) scales[g * rows + r] = made.scaleBits[r - (r % 8) + turns[r % 8]][g];
      }
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(`${stem}.weight_packed`, "I32", [cols / 32, (rows * bits) / 2], packed),
          raw(`${stem}.scale_packed`, "F16", [made.groups, rows], scales),
          raw(`${stem}.meta`, "I16", [cols / 32, rows * 2], orderedPlaces(words, rows, cols / 16)),
        ],
      };
    },
  };
}
