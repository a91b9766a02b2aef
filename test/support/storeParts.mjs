// What the ways of test/support/storeAs.mjs share: groups of codes and the tensors of a file.

const bytesOf = (typed) => new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);

/** Sets bit by bit: `bits` bits of a code at bit `at` of little-endian words. */
export function putBits(words, at, code, bits) {
  for (let b = 0; b < bits; b++) {
    if ((code >> b) & 1) words[Math.floor((at + b) / 32)] |= 1 << ((at + b) % 32);
  }
}

/** f16 bits of a positive number within its range, cut to 11 bits: the value it then stands for is what is used. */
function f16(value) {
  if (value === 0) return [0, 0];
  let exponent = Math.max(-14, Math.floor(Math.log2(value)));
  if (value / 2 ** exponent >= 2) exponent++;
  const steps = Math.round((value / 2 ** exponent) * 1024);
  const held = steps * 2 ** (exponent - 10);
  if (steps === 2048) return f16(held);
  return [steps < 1024 ? steps : ((exponent + 15) << 10) | (steps - 1024), held];
}

/** Rows cut into groups: codes, scales and zeros by [row][group], and what they stand for. */
export function toGroups({ shape: [rows, cols], values }, { bits, groupSize, symmetric, order, scale = f16 }) {
  const size = groupSize < 0 ? cols : groupSize;
  const groups = Math.ceil(cols / size);
  const groupOf = Array.from({ length: cols }, (_, c) => (order ? order[c] : Math.floor(c / size)));
  const highest = 2 ** bits - 1;
  const out = {
    groups,
    groupOf,
    codes: [],
    scales: [],
    zeros: [],
    scaleBits: [],
    expected: new Float32Array(rows * cols),
  };
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * cols, (r + 1) * cols);
    const [scales, zeros, scaleBits] = [[], [], []];
    for (let g = 0; g < groups; g++) {
      const own = Array.from(row).filter((_, c) => groupOf[c] === g);
      const [low, high] = [Math.min(0, ...own), Math.max(0, ...own)];
      const wanted = symmetric ? (2 * Math.max(-low, high)) / highest : (high - low) / highest;
      const [stored, held] = scale(wanted === 0 ? 1 : wanted);
      scaleBits.push(stored);
      scales.push(held);
      zeros.push(symmetric ? 2 ** (bits - 1) : Math.max(1, Math.min(highest, Math.round(-low / held))));
    }
    const codes = Array.from(row, (value, c) => {
      const g = groupOf[c];
      return Math.max(0, Math.min(highest, Math.round(value / scales[g]) + zeros[g]));
    });
    for (let c = 0; c < cols; c++) out.expected[r * cols + c] = (codes[c] - zeros[groupOf[c]]) * scales[groupOf[c]];
    out.codes.push(codes);
    out.scales.push(scales);
    out.zeros.push(zeros);
    out.scaleBits.push(scaleBits);
  }
  return out;
}

export const stemOf = (name) => name.replace(/\.weight$/, "");
export const raw = (name, dtype, shape, typed) => ({ name, dtype, shape, bytes: bytesOf(typed) });

/** A seeded order of groups: as `desc_act` leaves them. */
export function shuffled(cols, groupSize) {
  const order = Array.from({ length: cols }, (_, c) => Math.floor(c / groupSize));
  let state = 12345;
  for (let i = cols - 1; i > 0; i--) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const j = state % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

export const compressed = (format, weights) => ({
  quant_method: "compressed-tensors",
  format,
  quantization_status: "compressed",
  ignore: ["lm_head"],
  config_groups: { group_0: { targets: ["Linear"], weights, input_activations: null } },
});
export const f32 = (value) => [Math.fround(value), Math.fround(value)];
