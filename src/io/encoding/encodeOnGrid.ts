import { fromFloat32 } from "../../tensor/index.js";
import { packCodes } from "./bits.js";
import type { TensorGrid } from "./declaration.js";
import { maxMaskedEntries, offsetBytes, rowOffsets } from "./encodeMasked.js";
import { smallestExact } from "./floatDType.js";
import { forEachGroup } from "./gridGroups.js";
import { gather, maskOf } from "./mask.js";
import type { Candidate } from "./parts.js";

/** The codes a matrix was rounded to: value = scale · (code − zero). `QuantizeResult` of compress is one. */
export interface GridCodes {
  /** [rows, cols] */
  codes: Int16Array;
  /** [rows, groups], groups = ⌈cols / groupSize⌉ */
  scales: Float32Array;
  /** [rows, groups] */
  zeros: Int16Array;
  bits: number;
  groupSize: number;
}

/** A matrix as codes, all of them or those of the non-zeros; none when the codes stand for other values. */
export function encodeOnGrid(values: Float32Array, rows: number, cols: number, grid: GridCodes): Candidate[] {
  const { bits, groupSize, scales } = grid;
  if (bits > 8 || !standsFor(grid, values, rows, cols)) return [];
  const unsigned = toUnsigned(grid, rows, cols);
  if (unsigned === undefined) return [];
  const { codes, zeros } = unsigned;
  const scaleDType = smallestExact(scales);
  const shape = [rows, cols];
  const declared: TensorGrid = { bits, groupSize, symmetric: zeros === undefined, scaleDType };
  const grids = () => ({ scales: fromFloat32(scaleDType, scales), ...(zeros && { zeros }) });
  const candidates: Candidate[] = [
    {
      declaration: { encoding: "grid", dtype: "F32", shape, grid: declared },
      parts: () => {
        const rowBytes = Math.ceil((cols * bits) / 8);
        const packed = new Uint8Array(rows * rowBytes);
        for (let r = 0; r < rows; r++) {
          packCodes(codes.subarray(r * cols, (r + 1) * cols), bits, packed, r * rowBytes * 8);
        }
        return { codes: packed, ...grids() };
      },
    },
  ];
  if (values.length > maxMaskedEntries) return candidates;
  const bitmask = maskOf(values, rows, cols);
  const offsets = rowOffsets(bitmask, rows, cols);
  const nonZeros = offsets[rows];
  candidates.push({
    declaration: { encoding: "bitmask", dtype: "F32", shape, nonZeros, grid: declared },
    parts: () => {
      const kept = new Uint8Array(nonZeros);
      gather(bitmask, rows, cols, codes, kept);
      const packed = new Uint8Array(Math.ceil((nonZeros * bits) / 8));
      packCodes(kept, bits, packed, 0);
      return { bitmask, row_offsets: offsetBytes(offsets), codes: packed, ...grids() };
    },
  });
  return candidates;
}

function standsFor({ codes, scales, zeros, groupSize }: GridCodes, values: Float32Array, rows: number, cols: number) {
  let exact = true;
  forEachGroup(rows, cols, groupSize, (group, from, to) => {
    const scale = scales[group];
    const zero = zeros[group];
    for (let i = from; i < to && exact; i++) exact = Math.fround(scale * (codes[i] - zero)) === values[i];
  });
  return exact;
}

/** Codes from 0 to 2^bits − 1: with 2^(bits − 1) as every zero where they fit, else with the zeros as they are. */
function toUnsigned({ codes, zeros, bits, groupSize }: GridCodes, rows: number, cols: number) {
  const middle = 2 ** (bits - 1);
  const shifted = (shiftOf: (zero: number) => number): Uint8Array | undefined => {
    const out = new Uint8Array(codes.length);
    let fits = true;
    forEachGroup(rows, cols, groupSize, (group, from, to) => {
      const shift = shiftOf(zeros[group]);
      for (let i = from; i < to; i++) {
        const code = codes[i] + shift;
        fits &&= code >= 0 && code < 2 * middle;
        out[i] = code;
      }
    });
    return fits ? out : undefined;
  };
  const symmetric = shifted((zero) => middle - zero);
  if (symmetric !== undefined) return { codes: symmetric };
  const asIs = shifted(() => 0);
  if (asIs === undefined || zeros.some((zero) => zero < 0 || zero > 255)) return undefined;
  return { codes: asIs, zeros: Uint8Array.from(zeros) };
}
