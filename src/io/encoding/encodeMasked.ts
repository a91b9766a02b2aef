import { fromFloat32 } from "../../tensor/index.js";
import type { FloatDType } from "./floatDType.js";
import { gather, maskOf, maskOf24, rowPopulations } from "./mask.js";
import type { Candidate } from "./parts.js";

/** Row offsets are u32. */
export const maxMaskedEntries = 2 ** 32 - 1;

/** A matrix as a bit mask and the values it lets through. @param values held exactly by `dtype` */
export function encodeMasked(values: Float32Array, rows: number, cols: number, dtype: FloatDType): Candidate[] {
  if (values.length > maxMaskedEntries) return [];
  const kept = (mask: Uint8Array, count: number) => {
    const out = new Float32Array(count);
    gather(mask, rows, cols, values, out);
    return fromFloat32(dtype, out);
  };
  const shape = [rows, cols];
  const bitmask = maskOf(values, rows, cols);
  const offsets = rowOffsets(bitmask, rows, cols);
  const candidates: Candidate[] = [
    {
      declaration: { encoding: "bitmask", dtype, shape, nonZeros: offsets[rows] },
      parts: () => ({ bitmask, row_offsets: offsetBytes(offsets), values: kept(bitmask, offsets[rows]) }),
    },
  ];
  const bitmask24 = maskOf24(values, rows, cols);
  if (bitmask24 !== undefined) {
    candidates.push({
      declaration: { encoding: "24-bitmask", dtype, shape },
      parts: () => ({ bitmask: bitmask24, values: kept(bitmask24, values.length / 2) }),
    });
  }
  return candidates;
}

/** Set bits in all rows before each row, and in all. */
export function rowOffsets(mask: Uint8Array, rows: number, cols: number): Float64Array {
  const offsets = new Float64Array(rows + 1);
  for (const [r, count] of rowPopulations(mask, rows, cols)!.entries()) offsets[r + 1] = offsets[r] + count;
  return offsets;
}

/** U32, without the last, which counts all. */
export const offsetBytes = (offsets: Float64Array): Uint8Array =>
  new Uint8Array(Uint32Array.from(offsets.subarray(0, -1)).buffer);
