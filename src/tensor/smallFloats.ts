/** Floats of less than 16 bits, as tables from their bits to f32 (OCP 8-bit Floating Point and Microscaling Formats 1.0). */

/** All bit patterns of a float with a sign, exponent bits and fraction bits, without special values. */
function valuesOf(exponentBits: number, fractionBits: number): Float32Array {
  const bias = 2 ** (exponentBits - 1) - 1;
  const half = 2 ** (exponentBits + fractionBits);
  return Float32Array.from({ length: 2 * half }, (_, bits) => {
    const sign = bits < half ? 1 : -1;
    const exponent = (bits % half) >> fractionBits;
    const fraction = (bits % 2 ** fractionBits) / 2 ** fractionBits;
    return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
  });
}

/** E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. */
export const fp4Values: Readonly<Float32Array> = valuesOf(2, 1);

/** E4M3 without infinities; all ones is NaN. */
export const fp8E4M3Values: Readonly<Float32Array> = valuesOf(4, 3).map((value, bits) =>
  bits % 128 === 127 ? Number.NaN : value,
);

/** E5M2, with infinities and NaN as in f16. */
export const fp8E5M2Values: Readonly<Float32Array> = valuesOf(5, 2).map((value, bits) => {
  if (bits % 128 < 0x7c) return value;
  return bits % 128 === 0x7c ? Math.sign(value) * Number.POSITIVE_INFINITY : Number.NaN;
});

/** E8M0: powers of two, 2^(bits − 127); all ones is NaN. */
export const e8M0Values: Readonly<Float32Array> = Float32Array.from({ length: 256 }, (_, bits) =>
  bits === 255 ? Number.NaN : 2 ** (bits - 127),
);
