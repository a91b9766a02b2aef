import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { expectSameNumbers } from "../../../test/support/sameNumbers.js";
import { FormatError, UsageError } from "../../core/index.js";
import { f32FromBf16 } from "../../tensor/index.js";
import { padded, type SparseFormatId } from "../format.js";
import { sparseFormats } from "../sparseFormats.js";
import { weightFormats } from "../weightFormats.js";
import { bf16Up } from "./quantized.js";
import { packSparse } from "./sparseFormat.js";

/** A matrix with the share of non-zeros of each input between nothing and all, and at most two of four when asked for. */
const matrices = (twoOfFour: boolean) =>
  fc
    .record({
      rows: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(512, 513, 1100)),
      cols: fc.integer({ min: 1, max: 70 }),
      shares: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 9 }),
      values: fc.array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 1, maxLength: 50 }),
      seed: fc.nat(1e6),
    })
    .map(({ rows, cols, shares, values, seed }) => {
      const weights = Float32Array.from({ length: rows * cols }, (_, i) => {
        const [row, c] = [Math.floor(i / cols), i % cols];
        const noise = Math.abs(Math.sin(i * 12.9898 + seed) * 43758.5453) % 1;
        const allowed = !twoOfFour || [row % 4, (row + 1 + (c >> 2)) % 4].includes(c % 4);
        return allowed && noise < shares[c % shares.length] ? values[i % values.length] : 0;
      });
      return { rows, cols, weights };
    });

const ids = Object.keys(sparseFormats) as SparseFormatId[];

describe.each(ids)("%s", (id) => {
  const format = sparseFormats[id];
  const dense = weightFormats[format.value];
  const cases = matrices(format.structure === "2:4");

  it("stands for the same values as the dense format of its value type", () => {
    fc.assert(
      fc.property(cases, ({ rows, cols, weights }) => {
        const expected =
          id === "int8-mixed" ? int8(weights, cols) : dense.unpack(dense.pack(weights, rows, cols), rows, cols);
        expectSameNumbers(
          format.unpack(packSparse(format, weights, rows, cols), rows, cols),
          expected.map((v) => v + 0),
        );
      }),
      { numRuns: 60 },
    );
  });

  it("gives the same bytes however the rows are cut into chunks", () => {
    fc.assert(
      fc.property(cases, fc.integer({ min: 1, max: 20 }), ({ rows, cols, weights }, blocks) => {
        const packer = format.packer(rows, cols);
        const chunks: { start: number; count: number; bytes: Uint8Array }[] = [];
        for (let start = 0; start < rows; start += blocks * 32) {
          const count = Math.min(blocks * 32, rows - start);
          const bytes = dense.pack(weights.subarray(start * cols, (start + count) * cols), count, cols);
          chunks.push({ start, count, bytes });
        }
        for (const { start, count, bytes } of chunks) packer.measure(bytes, start, count);
        const out = new Uint8Array(packer.byteLength);
        for (const { start, count, bytes } of chunks) packer.write(bytes, start, count, out);
        expectSameNumbers(out, packSparse(format, weights, rows, cols));
      }),
      { numRuns: 40 },
    );
  });

  it("takes the bytes that its formula says, and reads all but tables and padding when every input is kept", () => {
    fc.assert(
      fc.property(cases, ({ rows, cols, weights }) => {
        const bytes = packSparse(format, weights, rows, cols);
        const values = format.unpack(bytes, rows, cols);
        const { byteLength, unreadBytes } = exactSize(id, values, rows, cols);
        expect(bytes.byteLength).toBe(byteLength);
        expect(format.bytesRead(bytes, rows, cols, () => true)).toBe(byteLength - unreadBytes);
        expect(format.bytesRead(bytes, rows, cols, () => false)).toBe(id === "int8-mixed" ? padded(rows) * 2 : 0);
      }),
      { numRuns: 40 },
    );
  });

  it("foretells the size of a large random matrix within 1 %", () => {
    const [rows, cols, density] = [1024, 256, 0.5];
    const weights = Float32Array.from({ length: rows * cols }, (_, i) => {
      const [row, c] = [Math.floor(i / cols), i % cols];
      const noise = Math.abs(Math.sin(i * 78.233) * 43758.5453) % 1;
      const kept = format.structure === "2:4" ? (row + c) % 4 < 2 : noise < density;
      return kept ? 1 + (i % 7) : 0;
    });
    const actual = packSparse(format, weights, rows, cols).byteLength;
    const share = format.structure === "block" ? 1 : density;
    expect(Math.abs(format.expectedBytes(rows, cols, share) / actual - 1)).toBeLessThan(0.01);
  });

  it("refuses damaged bytes with a FormatError, or reads them as some matrix, and never leaves them", () => {
    const damage = fc.record({
      flips: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 }),
      cut: fc.option(fc.nat(), { nil: undefined }),
      grow: fc.option(fc.integer({ min: 1, max: 64 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(cases, damage, ({ rows, cols, weights }, { flips, cut, grow }) => {
        const whole = packSparse(format, weights, rows, cols);
        const wrongLength = cut !== undefined ? cut % whole.length : whole.length + (grow ?? 0);
        // Bytes behind the view belong to somebody else.
        const around = new Uint8Array(Math.max(wrongLength, whole.length) + 128).fill(0xff);
        around.set(whole.subarray(0, Math.min(wrongLength, whole.length)), 64);
        const bytes = around.subarray(64, 64 + wrongLength);
        for (const [at, value] of flips) if (bytes.length > 0) bytes[at % bytes.length] = value;
        let values: Float32Array | undefined;
        try {
          values = format.unpack(bytes, rows, cols);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
        if (values !== undefined) expect(values.length).toBe(rows * cols);
        if (wrongLength !== whole.length && flips.every(([at]) => at % Math.max(bytes.length, 1) >= 64)) {
          expect(values, "wrong length").toBeUndefined();
        }
      }),
      { numRuns: 200 },
    );
  });
});

it("2:4 refuses a third weight among four inputs by its row", () => {
  const weights = new Float32Array(40 * 8);
  for (const c of [4, 5, 7]) weights[33 * 8 + c] = 1;
  const packing = () => packSparse(sparseFormats["2:4-bf16"], weights, 40, 8);
  expect(packing).toThrow(UsageError);
  expect(packing).toThrow("row 33 has more than two weights among inputs 4 to 7");
});

/** Sizes by the formulas of docs/formats.md, counted on the values. */
function exactSize(id: SparseFormatId, values: Float32Array, rows: number, cols: number) {
  const [paddedRows, groups] = [padded(rows), Math.ceil(cols / 32)];
  const { structure, value } = sparseFormats[id];
  const bits = { f32: 32, bf16: 16, q8: 8, q4: 4 }[value];
  const scaleBytes = bits === 16 ? 0 : groups * paddedRows * 2;
  if (id === "int8-mixed") {
    return { byteLength: paddedRows * (2 + groups * 32), unreadBytes: paddedRows * (groups * 32 - cols) };
  }
  if (structure === "2:4") {
    // Two codes and two 2-bit positions for every four inputs. Units of padding alone are never read.
    const unitInputs = bits === 16 ? 4 : 8;
    const unitBytes = (paddedRows * unitInputs * (bits + 2)) / 16;
    const units = (groups * 32) / unitInputs;
    const unreadBytes = (units - Math.ceil(cols / unitInputs)) * unitBytes;
    return { byteLength: scaleBytes + units * unitBytes, unreadBytes };
  }
  if (structure === "tiled-csl") {
    const [down, across] = [Math.ceil(rows / 128), Math.ceil(cols / 64)];
    const counts = new Uint32Array(down * across);
    for (const [i, v] of values.entries()) {
      if (v !== 0) counts[Math.floor(Math.floor(i / cols) / 128) * across + Math.floor((i % cols) / 64)]++;
    }
    const unreadBytes = (counts.length + 2) * 4;
    return { byteLength: counts.reduce((sum, n) => sum + Math.ceil(n / 4) * 16, unreadBytes), unreadBytes };
  }
  if (structure === "block") {
    let blocks = 0;
    for (let g = 0; g < groups; g++) {
      for (let first = 0; first < rows; first += 32) {
        const rowsOf = Array.from({ length: Math.min(32, rows - first) }, (_, k) => first + k);
        if (
          rowsOf.some((r) =>
            values.subarray(r * cols + g * 32, Math.min(r * cols + g * 32 + 32, (r + 1) * cols)).some((v) => v !== 0),
          )
        )
          blocks++;
      }
    }
    const maskBytes = groups * Math.ceil(paddedRows / 1024) * 4;
    const blockBytes = (32 * 32 * bits) / 8 + (bits === 16 ? 0 : 64);
    const paddingBytes = blocksPadding(values, rows, cols, groups, bits);
    const tableBytes = (groups + 1) * 4;
    return { byteLength: tableBytes + maskBytes + blocks * blockBytes, unreadBytes: tableBytes + paddingBytes };
  }
  const tableBytes = (cols * Math.ceil(paddedRows / 512) + 1) * 4;
  let codeBytes = 0;
  for (let c = 0; c < cols; c++) {
    for (let first = 0; first < rows; first += 32) {
      let count = 0;
      for (let r = first; r < Math.min(first + 32, rows); r++) if (values[r * cols + c] !== 0) count++;
      codeBytes += structure === "csr" ? 4 * count : Math.ceil((count * bits) / 8);
    }
  }
  const maskBytes = structure === "csr" ? 0 : (paddedRows / 8) * cols;
  return { byteLength: tableBytes + scaleBytes + maskBytes + codeBytes, unreadBytes: tableBytes };
}

/** Codes of inputs beyond the last in present blocks of the last group: they are held and never read. */
function blocksPadding(values: Float32Array, rows: number, cols: number, groups: number, bits: number): number {
  const padding = groups * 32 - cols;
  let blocks = 0;
  for (let first = 0; first < rows; first += 32) {
    let any = false;
    for (let r = first; r < Math.min(first + 32, rows); r++) {
      for (let c = (groups - 1) * 32; c < cols; c++) any ||= values[r * cols + c] !== 0;
    }
    if (any) blocks++;
  }
  return (blocks * 32 * padding * bits) / 8;
}

/** Rows rounded to 8 bits with one bf16 scale each. */
function int8(weights: Float32Array, cols: number): Float32Array {
  const out = new Float32Array(weights.length);
  for (let row = 0; row < weights.length; row += cols) {
    const values = weights.subarray(row, row + cols);
    const largest = values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    const scale = f32FromBf16(bf16Up(Math.fround(largest / 127)));
    for (const [c, v] of values.entries()) {
      const code = scale > 0 ? Math.fround(v * Math.fround(1 / scale)) : 0;
      const floor = Math.floor(code);
      const up = code - floor > 0.5 || (code - floor === 0.5 && floor % 2 !== 0);
      out[row + c] = (up ? floor + 1 : floor) * scale;
    }
  }
  return out;
}
