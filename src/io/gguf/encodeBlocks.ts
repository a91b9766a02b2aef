import { f16FromF32, f32FromF16, fromFloat32 } from "../../tensor/index.js";
import { type GgmlType, ggmlTypeByName } from "./ggmlTypes.js";

/** Types that are written, by their names on the command line. */
export const ggufTypeIds = ["f32", "f16", "bf16", "q8_0", "q4_0"] as const;
/** One of `ggufTypeIds`. */
export type GgufTypeId = (typeof ggufTypeIds)[number];

export interface GgufEncoding {
  type: GgmlType;
  /** `general.file_type`. */
  fileType: number;
  /**
   * @param values whole blocks
   * @param scales one per block, of the grid the values lie on; used where it gives the values back exactly
   */
  encode(values: Float32Array, scales?: Float32Array): Uint8Array;
}

const typeNamed = (name: string) => ggmlTypeByName.get(name)!;

export const ggufEncodings: Readonly<Record<GgufTypeId, GgufEncoding>> = {
  f32: { type: typeNamed("F32"), fileType: 0, encode: (values) => fromFloat32("F32", values) },
  f16: { type: typeNamed("F16"), fileType: 1, encode: (values) => fromFloat32("F16", values) },
  bf16: { type: typeNamed("BF16"), fileType: 32, encode: (values) => fromFloat32("BF16", values) },
  q8_0: {
    type: typeNamed("Q8_0"),
    fileType: 7,
    encode: (values, scales) =>
      encodeBlocks(typeNamed("Q8_0"), values, scales, 127, quantizeQ8, (codes, out, at) => {
        for (let i = 0; i < 32; i++) out[at + i] = codes[i];
      }),
  },
  q4_0: {
    type: typeNamed("Q4_0"),
    fileType: 2,
    encode: (values, scales) =>
      encodeBlocks(typeNamed("Q4_0"), values, scales, 7, quantizeQ4, (codes, out, at) => {
        for (let i = 0; i < 16; i++) out[at + i] = (codes[i] + 8) | ((codes[i + 16] + 8) << 4);
      }),
  },
};

/** @returns the scale in f32; fills codes */
type Quantize = (values: Float32Array, at: number, codes: Int8Array) => number;

function encodeBlocks(
  { blockBytes }: GgmlType,
  values: Float32Array,
  scales: Float32Array | undefined,
  largestCode: number,
  quantize: Quantize,
  put: (codes: Int8Array, out: Uint8Array, at: number) => void,
): Uint8Array {
  const blocks = values.length / 32;
  const out = new Uint8Array(blocks * blockBytes);
  const codes = new Int8Array(32);
  for (let block = 0; block < blocks; block++) {
    const known = scales?.[block];
    const exact = known !== undefined && codesOnScale(values, block * 32, known, largestCode, codes);
    const bits = f16FromF32(exact ? known : quantize(values, block * 32, codes));
    const at = block * blockBytes;
    out[at] = bits & 255;
    out[at + 1] = bits >> 8;
    put(codes, out, at + 2);
  }
  return out;
}

/** Codes whose products with the scale are exactly the values; false when there are none. */
function codesOnScale(values: Float32Array, at: number, scale: number, largest: number, codes: Int8Array): boolean {
  if (scale === 0 || f32FromF16(f16FromF32(scale)) !== scale) return false;
  for (let i = 0; i < 32; i++) {
    const code = Math.round(values[at + i] / scale);
    // The lowest code, −largest − 1, has no positive partner but a place in the block.
    if (code < -largest - 1 || code > largest || Math.fround(code * scale) !== values[at + i]) return false;
    codes[i] = code;
  }
  return true;
}

/** scale = max|x| / 127; codes rounded half away from zero with the scale before it becomes f16, as ggml does. */
const quantizeQ8: Quantize = (values, at, codes) => {
  let largest = 0;
  for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(values[at + i]));
  const scale = Math.fround(largest / 127);
  const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
  for (let i = 0; i < 32; i++) {
    const x = Math.fround(values[at + i] * inverse);
    codes[i] = Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
  }
  return scale;
};

/** The value of largest magnitude becomes −8; the others are rounded, and 8 becomes 7, as ggml does. */
const quantizeQ4: Quantize = (values, at, codes) => {
  let extreme = 0;
  for (let i = 0; i < 32; i++) if (Math.abs(values[at + i]) > Math.abs(extreme)) extreme = values[at + i];
  const scale = Math.fround(extreme / -8);
  const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
  for (let i = 0; i < 32; i++) {
    codes[i] = Math.min(15, Math.trunc(Math.fround(Math.fround(values[at + i] * inverse) + 8.5))) - 8;
  }
  return scale;
};
