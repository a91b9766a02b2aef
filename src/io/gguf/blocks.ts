import { f32FromF16 } from "../../tensor/index.js";

/**
 * How the quantised blocks of ggml decode: one function for each type, each with its fields in the order of the file. `d` is a
 * scale in f16 unless said otherwise; q are codes. Nibbles: "halves" means that byte i holds code i (low four bits) and code
 * i + 16 (high).
 */
export type DecodeBlock = (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;

const half = (bytes: Uint8Array, at: number) => f32FromF16(bytes[at] | (bytes[at + 1] << 8));
const signed = (byte: number) => (byte << 24) >> 24;
const { fround } = Math;

/** d; q u8[16] halves: x = d · (q − 8) */
export const q4_0: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[at + 2 + i];
    out[to + i] = d * ((byte & 15) - 8);
    out[to + 16 + i] = d * ((byte >> 4) - 8);
  }
};

/** d; minimum f16; q u8[16] halves: x = d · q + minimum */
export const q4_1: DecodeBlock = (bytes, at, out, to) => {
  const [d, minimum] = [half(bytes, at), half(bytes, at + 2)];
  for (let i = 0; i < 16; i++) {
    const byte = bytes[at + 4 + i];
    out[to + i] = d * (byte & 15) + minimum;
    out[to + 16 + i] = d * (byte >> 4) + minimum;
  }
};

/** Code i of 32 of five bits: nibbles (halves) at `low`, the fifth bit of code i is bit i of the four bytes at `high`. */
const fiveBits = (bytes: Uint8Array, high: number, low: number, i: number) => {
  const nibble = i < 16 ? bytes[low + i] & 15 : bytes[low + i - 16] >> 4;
  return nibble | (((bytes[high + (i >> 3)] >> (i & 7)) & 1) << 4);
};

/** d; fifth bits u8[4]; q u8[16] halves: x = d · (q − 16) */
export const q5_0: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * (fiveBits(bytes, at + 2, at + 6, i) - 16);
};

/** d; minimum f16; fifth bits u8[4]; q u8[16] halves: x = d · q + minimum */
export const q5_1: DecodeBlock = (bytes, at, out, to) => {
  const [d, minimum] = [half(bytes, at), half(bytes, at + 2)];
  for (let i = 0; i < 32; i++) out[to + i] = d * fiveBits(bytes, at + 4, at + 8, i) + minimum;
};

/** d; q int8[32]: x = d · q */
export const q8_0: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * signed(bytes[at + 2 + i]);
};

/** d; d · Σq f16; q int8[32]: x = d · q */
export const q8_1: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * signed(bytes[at + 4 + i]);
};

/** Code i of 256 of two bits: a byte holds the codes of four runs of 32, 128 entries for every 32 bytes. */
const twoBits = (bytes: Uint8Array, at: number, i: number) =>
  (bytes[at + (i >> 7) * 32 + (i & 31)] >> (((i >> 5) & 3) * 2)) & 3;

/** scale (low) and minimum (high nibble) u8[16]; q u8[64]; d; dmin f16: x = d · scale · q − dmin · minimum, 16 entries a scale */
export const q2K: DecodeBlock = (bytes, at, out, to) => {
  const [d, dMin] = [half(bytes, at + 80), half(bytes, at + 82)];
  for (let i = 0; i < 256; i++) {
    const scales = bytes[at + (i >> 4)];
    out[to + i] = fround(d * (scales & 15)) * twoBits(bytes, at + 16, i) - fround(dMin * (scales >> 4));
  }
};

/**
 * third bits u8[32]; q u8[64]; 6-bit scales u8[12]; d: x = d · (scale − 32) · (q − 4 where the third bit is not set). Scale s
 * has its low four bits in byte s mod 8 (low nibble of the first eight scales, high of the others) and its high two in byte
 * 8 + s mod 4, at 2 · ⌊s / 4⌋.
 */
export const q3K: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at + 108);
  const scales = at + 96;
  for (let i = 0; i < 256; i++) {
    const s = i >> 4;
    const low = (bytes[scales + (s & 7)] >> (s < 8 ? 0 : 4)) & 15;
    const scale = (low | (((bytes[scales + 8 + (s & 3)] >> ((s >> 2) * 2)) & 3) << 4)) - 32;
    const third = (bytes[at + (i & 31)] >> (i >> 5)) & 1;
    out[to + i] = fround(d * scale) * (twoBits(bytes, at + 32, i) - (third ? 0 : 4));
  }
};

/** d; dmin f16; 6-bit scales and minima u8[12]; q u8[128]: 8 runs of 32, x = d · scale · q − dmin · minimum */
export const q4K: DecodeBlock = (bytes, at, out, to) => {
  const [d, dMin] = [half(bytes, at), half(bytes, at + 2)];
  for (let run = 0; run < 8; run++) {
    const [scale, minimum] = scaleAndMinimum(bytes, at + 4, run);
    for (let i = 0; i < 32; i++) {
      out[to + run * 32 + i] = fround(d * scale) * runNibble(bytes, at + 16, run, i) - fround(dMin * minimum);
    }
  }
};

/** d; dmin f16; 6-bit scales and minima u8[12]; fifth bits u8[32], bit `run` of byte i; q u8[128]: as Q4_K */
export const q5K: DecodeBlock = (bytes, at, out, to) => {
  const [d, dMin] = [half(bytes, at), half(bytes, at + 2)];
  for (let run = 0; run < 8; run++) {
    const [scale, minimum] = scaleAndMinimum(bytes, at + 4, run);
    for (let i = 0; i < 32; i++) {
      const code = runNibble(bytes, at + 48, run, i) | (((bytes[at + 16 + i] >> run) & 1) << 4);
      out[to + run * 32 + i] = fround(d * scale) * code - fround(dMin * minimum);
    }
  }
};

/** A byte holds a code of an even run in its low half and one of the odd run after it in its high half. */
const runNibble = (bytes: Uint8Array, at: number, run: number, i: number) =>
  (bytes[at + (run >> 1) * 32 + i] >> ((run & 1) * 4)) & 15;

/** The 6-bit scale and minimum of one of the eight runs of a Q4_K or Q5_K block, packed into 12 bytes. */
function scaleAndMinimum(bytes: Uint8Array, at: number, run: number): [number, number] {
  if (run < 4) return [bytes[at + run] & 63, bytes[at + run + 4] & 63];
  const low = bytes[at + run + 4];
  return [(low & 15) | ((bytes[at + run - 4] >> 6) << 4), (low >> 4) | ((bytes[at + run] >> 6) << 4)];
}

/** low bits u8[128]; high bits u8[64]; scales int8[16]; d: x = d · scale · (q − 32), 16 entries a scale */
export const q6K: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at + 208);
  for (let i = 0; i < 256; i++) {
    const [within, quarter, part] = [i & 31, (i >> 5) & 3, i >> 7];
    const low = (bytes[at + part * 64 + (quarter & 1) * 32 + within] >> ((quarter >> 1) * 4)) & 15;
    const high = (bytes[at + 128 + part * 32 + within] >> (quarter * 2)) & 3;
    const scale = signed(bytes[at + 192 + (i >> 4)]);
    out[to + i] = fround(d * scale) * ((low | (high << 4)) - 32);
  }
};

/** d f32; q int8[256]; sums of 16 codes int16[16]: x = d · q */
export const q8K: DecodeBlock = (bytes, at, out, to) => {
  const d = new DataView(bytes.buffer, bytes.byteOffset + at, 4).getFloat32(0, true);
  for (let i = 0; i < 256; i++) out[to + i] = d * signed(bytes[at + 4 + i]);
};

/** What the codes of the IQ4 types stand for. */
const iq4Values = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** d; q u8[16] halves: x = d · value(q) */
export const iq4Nl: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[at + 2 + i];
    out[to + i] = d * iq4Values[byte & 15];
    out[to + 16 + i] = d * iq4Values[byte >> 4];
  }
};

/**
 * d; high bits of scales u16, two a run; their low bits u8[4], a nibble a run; q u8[128], 16 bytes (halves) a run of 32:
 * x = d · (scale − 32) · value(q)
 */
export const iq4Xs: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at);
  const high = bytes[at + 2] | (bytes[at + 3] << 8);
  for (let run = 0; run < 8; run++) {
    const low = (bytes[at + 4 + (run >> 1)] >> ((run & 1) * 4)) & 15;
    const scale = fround(d * ((low | (((high >> (run * 2)) & 3) << 4)) - 32));
    for (let i = 0; i < 16; i++) {
      const byte = bytes[at + 8 + run * 16 + i];
      out[to + run * 32 + i] = scale * iq4Values[byte & 15];
      out[to + run * 32 + 16 + i] = scale * iq4Values[byte >> 4];
    }
  }
};

/** Twice the values of the 16 numbers of FP4 (E2M1). */
const fp4Doubled = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** exponent u8 (E8M0); q u8[16] halves: x = 2^(exponent − 127) · FP4(q). OCP Microscaling Formats 1.0 */
export const mxfp4: DecodeBlock = (bytes, at, out, to) => {
  const scale = 2 ** (bytes[at] - 128);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[at + 1 + i];
    out[to + i] = scale * fp4Doubled[byte & 15];
    out[to + 16 + i] = scale * fp4Doubled[byte >> 4];
  }
};

/**
 * Codes 0, 1, 2 for −1, 0, 1, five to a byte as digits of base 3: the byte is ⌈256 · 0.q₀q₁q₂q₃q₄⌉. q u8[48] and four more
 * bytes with four digits each; d. Digit n of a run of bytes comes before digit n + 1 of its first; runs: 32, 16 and 4 bytes.
 */
export const tq1_0: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at + 52);
  let next = to;
  for (const [first, count, digits] of ternaryRuns) {
    for (let digit = 0, power = 1; digit < digits; digit++, power *= 3) {
      for (let i = 0; i < count; i++) {
        const shifted = (bytes[at + first + i] * power) & 255;
        out[next++] = d * (((shifted * 3) >> 8) - 1);
      }
    }
  }
};
const ternaryRuns = [
  [0, 32, 5],
  [32, 16, 5],
  [48, 4, 4],
] as const;

/** q u8[64], two bits a code for −1, 0, 1 (and 2), in runs as Q2_K; d: x = d · (q − 1) */
export const tq2_0: DecodeBlock = (bytes, at, out, to) => {
  const d = half(bytes, at + 64);
  for (let i = 0; i < 256; i++) out[to + i] = d * (twoBits(bytes, at, i) - 1);
};
