import { f16FromF32, f32FromF16, fp4Values, fromFloat32 } from "../../tensor/index.js";
import { type GgmlType, ggmlTypeByName } from "./ggmlTypes.js";

/** Types that are written, by their names on the command line. */
export const ggufTypeIds = ["f32", "f16", "bf16", "q8_0", "q4_0", "mxfp4"] as const;
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
  mxfp4: { type: typeNamed("MXFP4"), fileType: 38, encode: encodeMxfp4 },
};

/**
 * The largest value gets the largest power of two that FP4 has, 4, or more: values on such a grid come back exactly. Others are rounded
 * to the nearest, what is over 6 to 6.
 */
function encodeMxfp4(values: Float32Array): Uint8Array {
  const { blockBytes } = typeNamed("MXFP4");
  const out = new Uint8Array((values.length / 32) * blockBytes);
  for (let start = 0, at = 0; start < values.length; start += 32, at += blockBytes) {
    const block = values.subarray(start, start + 32);
    const largest = block.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const exponent = largest === 0 ? -127 : Math.max(-127, Math.min(127, exponentOf(largest) - 2));
    out[at] = exponent + 127;
    const codes = Array.from(block, (value) => nearestFp4(value / 2 ** exponent));
    for (let i = 0; i < 16; i++) out[at + 1 + i] = codes[i] | (codes[i + 16] << 4);
  }
  return out;
}

/** Of the largest power of two that is not above a number. */
const exponentOf = (value: number): number => {
  const guess = Math.floor(Math.log2(value));
  if (2 ** guess > value) return guess - 1;
  return 2 ** (guess + 1) <= value ? guess + 1 : guess;
};

/** @returns the code of E2M1; a tie goes to the smaller number */
function nearestFp4(value: number): number {
  const magnitude = Math.abs(value);
  let code = 0;
  for (let next = 1; next < 8; next++) {
    if (Math.abs(fp4Values[next] - magnitude) < Math.abs(fp4Values[code] - magnitude)) code = next;
  }
  return code | (value < 0 && code > 0 ? 8 : 0);
}

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
