import { UsageError } from "../../core/index.js";

const structure = { structure: "2:4", pattern: inFours, timedAt: [0.5] } as const;

import { f32FromBf16 } from "../../tensor/index.js";
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
import { inFours } from "./structure.js";

const blockRows = 32;

/** How the kernels of a value type want one unit of inputs: for 32 rows, positions and codes. */
interface UnitLayout {
  /** Inputs of one unit. */
  readonly inputs: 4 | 8;
  /** Bytes of 32 rows of a unit: positions, then codes. */
  readonly positionBytes: number;
  readonly codeBytes: number;
}

/**
 * At most two of every four consecutive inputs of a row are not 0. Of each row and four inputs two codes and their two
 * positions (2 bits each) are held, first the lower position; where fewer are not 0, positions 0 and 1, or 0 and the one
 * there is, or that one and 3, carry the code of 0. All sizes are fixed, so nothing tells where things begin.
 *
 *   bf16 [groups of 32 inputs][rows]   scales, in the order of `interleaved8` (q8 and q4)
 *   data: unit of inputs after unit, for every 32 rows positions and codes.
 *
 * bf16, units of 4 inputs: positions 2 bits of 32 rows of the first code, then of the second; codes of the 32 rows of the
 * first in the order of `interleaved8`, then of the second.
 * q8, units of 8 inputs: a row has four codes, two of inputs 0 to 3 and two of inputs 4 to 7, in 4 bytes; 4 rows are a
 * vector. Vector v of the 8 keeps the positions of its 16 codes in 16 bytes, bits 2 · (v % 4), those of v ≥ 4 in the next
 * 16 bytes. q4: the same, the codes of vectors v and v + 4 in the low and high halves of the same bytes.
 */
function twoOfFour(id: SparseFormatId, type: ValueType): SparseFormat {
  const unit: UnitLayout =
    type.bits === 16
      ? { inputs: 4, positionBytes: 16, codeBytes: 128 }
      : { inputs: 8, positionBytes: 32, codeBytes: 16 * type.bits };
  const blockBytes = unit.positionBytes + unit.codeBytes;
  const layout = (rows: number, cols: number) => {
    const paddedRows = padded(rows);
    const groups = Math.ceil(cols / groupSize);
    const scaleBytes = type.hasScales ? paddedRows * 2 : 0;
    const unitBytes = (paddedRows / blockRows) * blockBytes;
    const units = (groups * groupSize) / unit.inputs;
    const dataAt = groups * scaleBytes;
    return { paddedRows, groups, scaleBytes, unitBytes, units, dataAt, byteLength: dataAt + units * unitBytes };
  };

  /** Where position and code `n` (0 or 1) of row `k` and input four `quad` of a unit lie, from the start of the 32 rows. */
  const place = (k: number, quad: number, n: number) => {
    if (type.bits === 16) {
      const row = k;
      return {
        position: n * 8 + (row >> 2),
        shift: (row & 3) * 2,
        code: unit.positionBytes + n * 64 + interleaved8(row) * 2,
        codeShift: 0,
      };
    }
    const vector = k >> 2;
    const lane = (k & 3) * 4 + quad * 2 + n;
    const codeVector = type.bits === 8 ? vector : vector & 3;
    return {
      position: (vector >> 2) * 16 + lane,
      shift: (vector & 3) * 2,
      code: unit.positionBytes + codeVector * 16 + lane,
      codeShift: type.bits === 8 ? 0 : vector & 4,
    };
  };
  const places = Array.from({ length: blockRows }, (_, k) =>
    Array.from({ length: unit.inputs / 4 }, (_, quad) => [place(k, quad, 0), place(k, quad, 1)] as const),
  );
  /** The same by quad, as tables that `write` goes through: for row k and code n, entry 2k + n. */
  const tables = Array.from({ length: unit.inputs / 4 }, (_, quad) => {
    const entries = places.flatMap((row) => row[quad]);
    const table = (key: keyof ReturnType<typeof place>) => Uint8Array.from(entries, (entry) => entry[key]);
    return { position: table("position"), shift: table("shift"), code: table("code"), codeShift: table("codeShift") };
  });

  const packer = (rows: number, cols: number): SparsePacker => {
    const { scaleBytes, unitBytes, groups, dataAt, byteLength } = layout(rows, cols);
    return {
      byteLength,
      measure(chunk, start, count) {
        const dense = new DenseChunk(chunk, count, type);
        for (let first = 0; first < cols; first += 4) {
          const last = Math.min(first + 4, cols);
          if (!dense.hasMoreThanTwo(first, last)) continue;
          const nonZeros = new Uint8Array(dense.rows);
          for (let c = first; c < last; c++) {
            for (const [r, code] of dense.column(c).entries()) if (code !== type.zero) nonZeros[r]++;
          }
          const row = start + nonZeros.findIndex((n) => n > 2);
          throw new UsageError(`row ${row} has more than two weights among inputs ${first} to ${first + 3}`);
        }
      },
      write(chunk, start, count, into) {
        const dense = new DenseChunk(chunk, count, type);
        const length = dense.rows;
        /** Codes of four inputs. */
        const codes = new Uint16Array(4 * length);
        if (type.hasScales) {
          for (let g = 0; g < groups; g++) into.set(dense.scales(g), g * scaleBytes + start * 2);
        }
        for (let first = 0; first < groups * groupSize; first += 4) {
          for (let i = 0; i < 4; i++) {
            if (first + i < cols) codes.set(dense.column(first + i), i * length);
            else codes.fill(type.zero, i * length, (i + 1) * length);
          }
          const unitIndex = Math.floor(first / unit.inputs);
          const { position, shift, code, codeShift } = tables[(first % unit.inputs) / 4];
          const unitAt = dataAt + unitIndex * unitBytes + (start / blockRows) * blockBytes;
          for (let r = 0; r < length; r++) {
            const block = unitAt + (r >> 5) * blockBytes;
            let pattern = 0;
            for (let i = 0; i < 4; i++) pattern |= (((codes[i * length + r] ^ type.zero) + 0xffff) >>> 16) << i;
            for (let n = 0; n < 2; n++) {
              const input = positions[2 * pattern + n];
              const value = codes[input * length + r];
              const at = 2 * (r & 31) + n;
              into[block + position[at]] |= input << shift[at];
              into[block + code[at]] |= value << codeShift[at];
              if (type.bits === 16) into[block + code[at] + 1] = value >> 8;
            }
          }
        }
      },
    };
  };

  return {
    id,
    ...structure,
    value: type.id,
    packer,

    unpack(bytes, rows, cols) {
      const { paddedRows, scaleBytes, unitBytes, groups, dataAt, byteLength } = layout(rows, cols);
      const fail = (problem: string, expected?: string) => damaged(id, rows, cols, problem, expected);
      if (bytes.byteLength !== byteLength) throw fail(`${bytes.byteLength} bytes`, `${byteLength}`);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const out = new Float32Array(rows * cols);
      for (let first = 0; first < groups * groupSize; first += 4) {
        const scales = Math.floor(first / groupSize) * scaleBytes;
        const quad = (first % unit.inputs) / 4;
        for (let r = 0; r < paddedRows; r++) {
          const block = dataAt + Math.floor(first / unit.inputs) * unitBytes + (r >> 5) * blockBytes;
          let before = -1;
          for (const at of places[r & 31][quad]) {
            const position = (bytes[block + at.position] >> at.shift) & 3;
            if (position <= before) throw fail(`row ${r} has positions ${before} and ${position} at input ${first}`);
            before = position;
            const code =
              type.bits === 16
                ? view.getUint16(block + at.code, true)
                : (bytes[block + at.code] >> at.codeShift) & ((1 << type.bits) - 1);
            const c = first + position;
            if (r < rows && c < cols) {
              const scale = type.hasScales ? f32FromBf16(view.getUint16(scales + interleaved8(r) * 2, true)) : 0;
              out[r * cols + c] = type.hasScales ? (code - type.zero) * scale : f32FromBf16(code);
            } else if (code !== type.zero) throw fail(`row ${r}, input ${c} lies outside and is not 0`);
          }
        }
      }
      return out;
    },

    bytesRead(_bytes, rows, cols, kept) {
      const { scaleBytes, unitBytes } = layout(rows, cols);
      let total = 0;
      for (let group = 0; group < cols; group += groupSize) {
        let units = 0;
        for (let first = group; first < Math.min(group + groupSize, cols); first += unit.inputs) {
          let any = false;
          for (let c = first; c < Math.min(first + unit.inputs, cols); c++) any ||= kept(c);
          if (any) units++;
        }
        total += units * unitBytes + (units > 0 ? scaleBytes : 0);
      }
      return total;
    },

    expectedBytes: (rows, cols) => layout(rows, cols).byteLength,
  };
}

/** Two ascending positions of four that hold every code that is not 0, by which of the four are not (bit i: the i-th). */
const positions = Uint8Array.from(
  Array.from({ length: 16 }, (_, pattern) => {
    const held = [0, 1, 2, 3].filter((i) => (pattern >> i) & 1);
    if (held.length === 0) return [0, 1];
    const [low, high] = held;
    if (high !== undefined) return [low, high];
    return low === 3 ? [0, 3] : [low, 3];
  }).flat(),
);

export const twoOfFourBf16 = twoOfFour("2:4-bf16", valueTypes.bf16);
export const twoOfFourQ8 = twoOfFour("2:4-q8", valueTypes.q8);
export const twoOfFourQ4 = twoOfFour("2:4-q4", valueTypes.q4);
