import type { JobOptions } from "../core/index.js";
import type { RowSource } from "../kernels/index.js";
import type { ZeroShares } from "../pack/index.js";
import { dtypeBytes } from "../tensor/index.js";

/** How the zeros of a stack of matrices lie. */
export interface SparsityProfile extends ZeroShares {
  /** Σ rows of the parts. */
  rows: number;
  cols: number;
}

/** Rows that are read at a time, a multiple of `blockSize`. */
const chunkRows = 128;
const blockSize = 32;
/** Where this share of some rows is not 0, nobody made zeros, and the rest is not read. */
const plainlyDense = 0.9;

/** Counts the zeros of a stack. A dense matrix is known after a few rows; any other is read from end to end. */
export async function sparsityProfile(parts: readonly RowSource[], job: JobOptions = {}): Promise<SparsityProfile> {
  const [{ cols }] = parts;
  const profile = { rows: 0, cols, density: 0, blockDensity: 0, twoOfFour: true };
  let nonZeros = 0;
  let blocks = 0;
  let present = 0;
  for (const source of parts) {
    const { rows, dtype } = source;
    profile.rows += rows;
    const bytes = new Uint8Array(Math.min(chunkRows, rows) * cols * dtypeBytes[dtype]);
    for (let start = 0; start < rows; start += chunkRows) {
      job.signal?.throwIfAborted();
      const count = Math.min(chunkRows, rows - start);
      const chunk = bytes.subarray(0, count * cols * dtypeBytes[dtype]);
      await source.read(start, count, chunk);
      const found = countNonZeros(chunk, dtypeBytes[dtype], cols);
      if (start === 0 && found.nonZeros > plainlyDense * count * cols)
        return { ...profile, density: 1, blockDensity: 1, twoOfFour: false };
      nonZeros += found.nonZeros;
      blocks += Math.ceil(count / blockSize) * Math.ceil(cols / blockSize);
      present += found.blocks;
      profile.twoOfFour &&= found.twoOfFour;
    }
  }
  return { ...profile, density: nonZeros / (profile.rows * cols), blockDensity: present / blocks };
}

/** Of whole rows of 16- or 32-bit floats; -0 is 0. */
function countNonZeros(bytes: Uint8Array, size: number, cols: number) {
  const [values, magnitude] =
    size === 2
      ? [new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2), 0x7fff]
      : [new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), 0x7fffffff];
  // A magnitude that is not 0 carries into the sign's bit: no branch on what no processor foresees.
  const signBit = size * 8 - 1;
  let nonZeros = 0;
  let twoOfFour = true;
  const columnBlocks = Math.ceil(cols / blockSize);
  const present = new Uint8Array(Math.ceil(values.length / cols / blockSize) * columnBlocks);
  for (let row = 0, r = 0; row < values.length; row += cols, r++) {
    const block = Math.floor(r / blockSize) * columnBlocks;
    for (let c = 0; c < cols; c += 4) {
      let inFour = 0;
      const end = Math.min(c + 4, cols);
      for (let i = row + c; i < row + end; i++) inFour += ((values[i] & magnitude) + magnitude) >>> signBit;
      nonZeros += inFour;
      if (inFour > 0) present[block + Math.floor(c / blockSize)] = 1;
      if (inFour > 2) twoOfFour = false;
    }
  }
  return { nonZeros, twoOfFour, blocks: present.reduce((sum, one) => sum + one, 0) };
}
