import { constantsTable, gatherTable, spreadTable } from "./layout.js";

/** Shuffles give 0 for it. */
const nothing = 0x80;

/** Writes the lookup tables of the kernels into a memory; see layout.ts. */
export function writeTables(memory: Uint8Array): void {
  for (let mask = 0; mask < 256; mask++) {
    const entry = memory.subarray(spreadTable + mask * 32, spreadTable + mask * 32 + 32);
    entry.fill(nothing, 0, 24);
    let present = 0;
    for (let row = 0; row < 8; row++) {
      if (((mask >> row) & 1) === 0) continue;
      const half = ((row & 3) << 1) | (row >> 2);
      entry[2 * half] = 2 * present;
      entry[2 * half + 1] = 2 * present + 1;
      entry[16 + row] = present;
      present++;
    }
    entry[24] = present;
    entry[25] = 2 * present;
  }
  for (let positions = 0; positions < 256; positions++) {
    for (let byte = 0; byte < 16; byte++) {
      const position = (positions >> (2 * (byte >> 2))) & 3;
      memory[gatherTable + positions * 16 + byte] = 4 * position + (byte & 3);
    }
  }
  for (const [n, bytes] of constants.entries()) {
    for (let byte = 0; byte < 16; byte++) memory[constantsTable + n * 16 + byte] = bytes[byte % 4];
  }
}

/** Four bytes each, repeated. */
const constants = [
  [0, 0, 255, 255],
  [15, 15, 15, 15],
  [3, 3, 3, 3],
  [1, 1, 1, 1],
  [128, 128, 128, 128],
  [8, 8, 8, 8],
  [0, 0, 4, 4],
];
