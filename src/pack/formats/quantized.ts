import { bf16FromF32, f32FromBf16 } from "../../tensor/index.js";
import { checkLength, groupSize, padded, type WeightFormat } from "../format.js";
import { interleaved8 } from "./dense.js";

/**
 * Symmetric round-to-nearest in groups of 32 consecutive inputs of one row (out), codes stored with an offset so that
 * they are unsigned: w ≈ scale · (code − zero). The scale is max|w| / (zero − 1), rounded up to bf16, so no code clips.
 * Where the weights come with the scale of their grid and no code of the group leaves the range, that scale is taken instead,
 * rounded to the nearest bf16: then codes that another quantiser chose (GPTQ, AWQ) stand as they are, and with a scale that is
 * exact in bf16 so do the values; others change by at most 2⁻⁸ of themselves, less than what other codes would.
 *
 * Layout: for each group of 32 inputs, bf16 scales [paddedRows] (in the order of `interleaved8`), then the codes of the
 * 32 inputs, each [paddedRows]. q8: one byte a code. q4: byte k of a block of 16 holds row k of a run of 32 rows in its
 * low half and row k + 16 in its high half.
 */
function quantized(id: "q8" | "q4", bits: 8 | 4): WeightFormat {
  const zero = 1 << (bits - 1);
  const columnBytes = (stride: number) => (stride * bits) / 8;
  const scaleBytes = (stride: number) => stride * 2;
  const groupBytes = (stride: number) => scaleBytes(stride) + groupSize * columnBytes(stride);

  const format: WeightFormat = {
    id,
    bitsPerWeight: bits + 16 / groupSize,
    byteLength: (rows, cols) => (padded(cols) / groupSize) * groupBytes(padded(rows)),
    columnBytes: (rows) => columnBytes(padded(rows)),
    groupScaleBytes: (rows) => scaleBytes(padded(rows)),

    pack(weights, rows, cols, given) {
      const stride = padded(rows);
      const out = new Uint8Array(format.byteLength(rows, cols));
      const view = new DataView(out.buffer);
      const groups = padded(cols) / groupSize;
      for (let g = 0; g < groups; g++) {
        const scales = g * groupBytes(stride);
        const codes = scales + scaleBytes(stride);
        // All 0, padding too.
        out.fill(bits === 8 ? zero : zero | (zero << 4), codes, codes + groupSize * columnBytes(stride));
        const inputs = Math.min(groupSize, cols - g * groupSize);
        for (let r = 0; r < rows; r++) {
          const first = r * cols + g * groupSize;
          let [smallest, largest] = [0, 0];
          // Math.min and Math.max hand on what is not a number.
          for (let i = first; i < first + inputs; i++) {
            smallest = Math.min(smallest, weights[i]);
            largest = Math.max(largest, weights[i]);
          }
          const ofGrid = given === undefined ? 0 : given[r * groups + g];
          const isTaken = holds(ofGrid, smallest, largest, zero);
          const scaleBits = isTaken
            ? bf16FromF32(ofGrid)
            : bf16Up(Math.fround(Math.max(-smallest, largest) / (zero - 1)));
          view.setUint16(scales + interleaved8(r) * 2, scaleBits, true);
          const scale = isTaken ? ofGrid : f32FromBf16(scaleBits);
          const inverse = scale > 0 ? Math.fround(1 / scale) : 0;
          for (let i = 0; i < inputs; i++) {
            const code = zero + roundToEven(Math.fround(weights[first + i] * inverse));
            const column = codes + i * columnBytes(stride);
            if (bits === 8) out[column + r] = code;
            else out[column + nibbleByte(r)] ^= (code ^ zero) << nibbleShift(r);
          }
        }
      }
      return out;
    },

    unpack(bytes, rows, cols) {
      checkLength(format, bytes, rows, cols);
      const stride = padded(rows);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const out = new Float32Array(rows * cols);
      for (let c = 0; c < cols; c++) {
        const group = Math.floor(c / groupSize) * groupBytes(stride);
        const column = group + scaleBytes(stride) + (c % groupSize) * columnBytes(stride);
        for (let r = 0; r < rows; r++) {
          const code = bits === 8 ? bytes[column + r] : (bytes[column + nibbleByte(r)] >> nibbleShift(r)) & 15;
          out[r * cols + c] = (code - zero) * f32FromBf16(view.getUint16(group + interleaved8(r) * 2, true));
        }
      }
      return out;
    },
  };
  return format;
}

export const q8 = quantized("q8", 8);
export const q4 = quantized("q4", 4);

/** Where the code of a row of q4 lies in its column. */
export const nibbleByte = (row: number) => ((row >> 5) << 4) | (row & 15);
export const nibbleShift = (row: number) => (row & 16) >> 2;

/** Whether codes of the scale of a grid can hold what lies between the two. */
function holds(scale: number, smallest: number, largest: number, zero: number): boolean {
  // Scales at the ends of the range would be rounded out of it.
  if (!(scale >= 2 ** -126 && scale < 2 ** 127)) return false;
  const inverse = Math.fround(1 / scale);
  return Math.fround(smallest * inverse) >= -zero - 0.5 && Math.fround(largest * inverse) < zero - 0.5;
}

/** The smallest bf16 number ≥ value ≥ 0; 0 where it would be subnormal, because its inverse could overflow. */
export function bf16Up(value: number): number {
  if (value < 2 ** -126) return 0;
  const nearest = bf16FromF32(value);
  return f32FromBf16(nearest) < value ? nearest + 1 : nearest;
}

/** Numbers from here on have no f32 fraction: adding it rounds, halves to even. */
const noFraction = 1.5 * 2 ** 23;

/** @param value an f32 number below 2^22 in magnitude */
export const roundToEven = (value: number): number => Math.fround(value + noFraction) - noFraction;
