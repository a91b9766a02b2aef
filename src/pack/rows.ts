import { FormatError } from "../core/index.js";
import { f32FromBf16, fromFloat32, toFloat32 } from "../tensor/index.js";
import { groupSize, padded, type WeightFormatId } from "./format.js";
import { interleaved8 } from "./formats/dense.js";
import { nibbleByte, nibbleShift } from "./formats/quantized.js";
import { weightFormats } from "./weightFormats.js";

// Rows of a matrix that are held one by one, so that those of neurons that are idle need not be read. Their numbers are those of the
// packed matrix, its scales and codes included.

const codeBits = { q8: 8, q4: 4 } as const;

/** Bytes of the scales of a row: bf16, one for every group of inputs, filled up to a multiple of 4. */
const scaleBytes = (cols: number): number => 4 * Math.ceil(padded(cols) / groupSize / 2);

/** Bytes of one row of `cols` numbers that is held by itself; a multiple of 4 where `cols` is one. */
export function rowBytes(format: WeightFormatId, cols: number): number {
  if (format === "f32") return cols * 4;
  if (format === "bf16") return cols * 2;
  return scaleBytes(cols) + (padded(cols) * codeBits[format]) / 8;
}

/**
 * Rows that are held one by one, one behind the other: `rows` times `rowBytes`. f32 and bf16 lie as they are. Of q8 and q4 the scales of all
 * groups of 32 inputs come first, bf16, then the codes: q8 a byte each, q4 sixteen bytes for a group, of which byte k holds input k in its
 * low half and input k + 16 in its high half.
 * @param weights f32 row-major [rows, cols]
 * @param scales f32 [rows, ⌈cols / 32⌉] of the grid that the weights lie on, as in `WeightFormat.pack`
 */
export function packRows(
  format: WeightFormatId,
  weights: Float32Array,
  rows: number,
  cols: number,
  scales?: Float32Array,
): Uint8Array {
  if (format === "f32" || format === "bf16") return fromFloat32(format === "f32" ? "F32" : "BF16", weights);
  const packed = weightFormats[format].pack(weights, rows, cols, scales);
  const bytes = rowBytes(format, cols);
  const out = new Uint8Array(rows * bytes);
  const column = weightFormats[format].columnBytes(rows);
  const groupScales = weightFormats[format].groupScaleBytes(rows);
  for (let g = 0; g < padded(cols) / groupSize; g++) {
    const group = packed.subarray(g * (groupScales + groupSize * column));
    for (let r = 0; r < rows; r++) {
      const row = out.subarray(r * bytes, (r + 1) * bytes);
      row.set(group.subarray(2 * interleaved8(r), 2 * interleaved8(r) + 2), 2 * g);
      for (let i = 0; i < groupSize; i++) {
        const codes = group.subarray(groupScales + i * column);
        if (format === "q8") row[scaleBytes(cols) + g * groupSize + i] = codes[r];
        else {
          const code = (codes[nibbleByte(r)] >> nibbleShift(r)) & 15;
          row[scaleBytes(cols) + (g * groupSize) / 2 + (i & 15)] |= code << (i < 16 ? 0 : 4);
        }
      }
    }
  }
  return out;
}

/** The f32 numbers [cols] of a row that is held by itself. @throws FormatError for bytes of another length */
export function unpackRow(format: WeightFormatId, bytes: Uint8Array, cols: number): Float32Array {
  const expected = rowBytes(format, cols);
  if (bytes.byteLength !== expected) {
    const problem = `${bytes.byteLength} bytes for a row of ${cols}`;
    throw new FormatError({ file: `${format} row`, problem, expected: `${expected} bytes` });
  }
  if (format === "f32" || format === "bf16") return toFloat32(format === "f32" ? "F32" : "BF16", bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: cols }, (_, c) => {
    const [g, i] = [Math.floor(c / groupSize), c % groupSize];
    const scale = f32FromBf16(view.getUint16(2 * g, true));
    if (format === "q8") return (bytes[scaleBytes(cols) + c] - 128) * scale;
    return (((bytes[scaleBytes(cols) + g * 16 + (i & 15)] >> (i < 16 ? 0 : 4)) & 15) - 8) * scale;
  });
}
