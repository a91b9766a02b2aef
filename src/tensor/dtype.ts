import { e8M0Values, fp8E4M3Values, fp8E5M2Values } from "./smallFloats.js";

/** Element types as safetensors spells them. */
export type DType =
  | "F64"
  | "F32"
  | "F16"
  | "BF16"
  | "F8_E4M3"
  | "F8_E5M2"
  | "F8_E8M0"
  | "F6_E2M3"
  | "F6_E3M2"
  | "F4"
  | "C64"
  | "I64"
  | "I32"
  | "I16"
  | "I8"
  | "U64"
  | "U32"
  | "U16"
  | "U8"
  | "BOOL";

/** Bytes per element; elements of less than a byte lie without gaps. */
export const dtypeBytes: Readonly<Record<DType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  F6_E2M3: 0.75,
  F6_E3M2: 0.75,
  F4: 0.5,
  C64: 8,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

/** Whether a name is that of a type whose values can be read; what others are called is not known here. */
export function isDType(name: string): name is DType {
  return Object.hasOwn(dtypeBytes, name);
}

const scratchF32 = new Float32Array(1);
const scratchU32 = new Uint32Array(scratchF32.buffer);

/** f32 → bf16 bits, round to nearest, ties to even; NaN stays NaN. */
export function bf16FromF32(value: number): number {
  scratchF32[0] = value;
  const bits = scratchU32[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** bf16 bits → f32, exact. */
export function f32FromBf16(bits: number): number {
  scratchU32[0] = bits << 16;
  return scratchF32[0];
}

/** f16 bits → f32, exact. */
export function f32FromF16(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return (sign ? -1 : 1) * fraction * 2 ** -24;
  scratchU32[0] =
    exponent === 31 ? sign | 0x7f800000 | (fraction << 13) : sign | ((exponent + 112) << 23) | (fraction << 13);
  return scratchF32[0];
}

/** f32 → f16 bits, round to nearest, ties to even; overflow gives infinity. */
export function f16FromF32(value: number): number {
  scratchF32[0] = value;
  const bits = scratchU32[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: let f32 addition round at the right place.
    scratchU32[0] = magnitude;
    scratchF32[0] = scratchF32[0] + 0.5;
    return sign | (scratchU32[0] - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/**
 * Widens `count` stored elements to f32. Float types of at least 8 bits and the 8-, 16- and 32-bit integers are taken.
 * @param bytes little-endian elements; `bytes.byteLength` must be `count * dtypeBytes[dtype]`; any alignment.
 */
export function toFloat32(
  dtype: DType,
  bytes: Uint8Array,
  out = new Float32Array(bytes.byteLength / dtypeBytes[dtype]),
): Float32Array {
  const read = readers[dtype];
  if (read === undefined) throw new TypeError(`${dtype} has no f32 form`);
  // An aligned view of the right element type makes the loops below monomorphic and fast.
  const aligned = bytes.byteOffset % dtypeBytes[dtype] === 0 ? bytes : bytes.slice();
  read(aligned, out);
  return out;
}

type Reader = (bytes: Uint8Array, out: Float32Array) => void;
const looked = (values: Readonly<Float32Array>) => (b: Uint8Array, out: Float32Array) => {
  for (let i = 0; i < b.length; i++) out[i] = values[b[i]];
};
const bits16 = (b: Uint8Array) => new Uint16Array(b.buffer, b.byteOffset, b.byteLength >>> 1);

const readers: Partial<Record<DType, Reader>> = {
  F64: (b, out) => out.set(new Float64Array(b.buffer, b.byteOffset, b.byteLength >>> 3)),
  F32: (b, out) => out.set(new Float32Array(b.buffer, b.byteOffset, b.byteLength >>> 2)),
  BF16: (b, out) => {
    const source = bits16(b);
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < source.length; i++) bits[i] = source[i] << 16;
  },
  F16: (b, out) => {
    const source = bits16(b);
    for (let i = 0; i < source.length; i++) out[i] = f32FromF16(source[i]);
  },
  I32: (b, out) => out.set(new Int32Array(b.buffer, b.byteOffset, b.byteLength >>> 2)),
  U32: (b, out) => out.set(new Uint32Array(b.buffer, b.byteOffset, b.byteLength >>> 2)),
  I16: (b, out) => out.set(new Int16Array(b.buffer, b.byteOffset, b.byteLength >>> 1)),
  U16: (b, out) => out.set(bits16(b)),
  I8: (b, out) => out.set(new Int8Array(b.buffer, b.byteOffset, b.byteLength)),
  U8: (b, out) => out.set(b),
  BOOL: (b, out) => out.set(b),
  F8_E4M3: looked(fp8E4M3Values),
  F8_E5M2: looked(fp8E5M2Values),
  F8_E8M0: looked(e8M0Values),
};

/** Narrows f32 to stored little-endian bytes of `dtype` (F32, F16 or BF16), rounding to nearest even. */
export function fromFloat32(dtype: "F32" | "F16" | "BF16", values: Float32Array): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.slice().buffer);
  const out = new Uint16Array(values.length);
  const convert = dtype === "F16" ? f16FromF32 : bf16FromF32;
  for (let i = 0; i < values.length; i++) out[i] = convert(values[i]);
  return new Uint8Array(out.buffer);
}
