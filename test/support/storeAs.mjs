// Weights as other tools store them quantised: written from the descriptions of the formats, by bits and in plain loops, and
// shared with nothing that reads them. Codes are chosen by rounding to the nearest; no method tunes them.

import { storeMarlin24 } from "./storeMarlin24.mjs";
import { compressed, f32, putBits, raw, shuffled, stemOf, toGroups } from "./storeParts.mjs";

/**
 * @typedef {{ shape: number[], values: Float32Array }} Dense
 * @typedef {{ name: string, dtype: string, shape: number[], bytes: Uint8Array }} Raw
 * @typedef {{ record: object, parts: (name: string, dense: Dense) => { raw: Raw[], expected: Float32Array } }} Store
 */

/** @returns {Store} */
function gptq({ bits, groupSize, symmetric, ordered = false, version = 1 }) {
  return {
    record: {
      quant_method: "gptq",
      bits,
      group_size: groupSize,
      sym: symmetric,
      desc_act: ordered,
      ...(version === 2 && { checkpoint_format: "gptq_v2" }),
    },
    parts(name, dense) {
      const [rows, cols] = dense.shape;
      const order = ordered ? shuffled(cols, groupSize) : undefined;
      const made = toGroups(dense, { bits, groupSize, symmetric, order });
      const { groups } = made;
      const wordRows = (cols * bits) / 32;
      const qweight = new Int32Array(wordRows * rows);
      const column = new Int32Array(wordRows);
      for (let r = 0; r < rows; r++) {
        column.fill(0);
        for (let c = 0; c < cols; c++) putBits(column, c * bits, made.codes[r][c], bits);
        for (let w = 0; w < wordRows; w++) qweight[w * rows + r] = column[w];
      }
      const zeroWords = (rows * bits) / 32;
      const qzeros = new Int32Array(groups * zeroWords);
      const scales = new Uint16Array(groups * rows);
      for (let g = 0; g < groups; g++) {
        const line = qzeros.subarray(g * zeroWords, (g + 1) * zeroWords);
        for (let r = 0; r < rows; r++) {
          putBits(line, r * bits, made.zeros[r][g] - (version === 1 ? 1 : 0), bits);
          scales[g * rows + r] = made.scaleBits[r][g];
        }
      }
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(`${stem}.qweight`, "I32", [wordRows, rows], qweight),
          raw(`${stem}.qzeros`, "I32", [groups, zeroWords], qzeros),
          raw(`${stem}.scales`, "F16", [groups, rows], scales),
          raw(`${stem}.g_idx`, "I32", [cols], Int32Array.from(made.groupOf)),
        ],
      };
    },
  };
}

/** @returns {Store} */
function awq({ groupSize }) {
  const columnOfNibble = [0, 2, 4, 6, 1, 3, 5, 7];
  return {
    record: { quant_method: "awq", bits: 4, group_size: groupSize, zero_point: true, version: "gemm" },
    parts(name, dense) {
      const [rows, cols] = dense.shape;
      const made = toGroups(dense, { bits: 4, groupSize, symmetric: false });
      const words = rows / 8;
      const pack = (length, codeAt) => {
        const out = new Int32Array(length * words);
        for (let i = 0; i < length; i++) {
          for (let w = 0; w < words; w++) {
            for (let nibble = 0; nibble < 8; nibble++) {
              out[i * words + w] |= codeAt(w * 8 + columnOfNibble[nibble], i) << (4 * nibble);
            }
          }
        }
        return out;
      };
      const scales = new Uint16Array(made.groups * rows);
      for (let g = 0; g < made.groups; g++) for (let r = 0; r < rows; r++) scales[g * rows + r] = made.scaleBits[r][g];
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(
            `${stem}.qweight`,
            "I32",
            [cols, words],
            pack(cols, (r, c) => made.codes[r][c]),
          ),
          raw(
            `${stem}.qzeros`,
            "I32",
            [made.groups, words],
            pack(made.groups, (r, g) => made.zeros[r][g]),
          ),
          raw(`${stem}.scales`, "F16", [made.groups, rows], scales),
        ],
      };
    },
  };
}

/** @returns {Store} */
function packQuantized({ bits, groupSize, symmetric, ordered = false }) {
  return {
    record: compressed("pack-quantized", {
      num_bits: bits,
      type: "int",
      symmetric,
      strategy: groupSize < 0 ? "channel" : "group",
      group_size: groupSize < 0 ? null : groupSize,
      actorder: ordered ? "group" : null,
    }),
    parts(name, dense) {
      const [rows, cols] = dense.shape;
      const order = ordered ? shuffled(cols, groupSize) : undefined;
      const made = toGroups(dense, { bits, groupSize, symmetric, order, scale: f32 });
      const words = Math.ceil((cols * bits) / 32);
      const packed = new Int32Array(rows * words);
      for (let r = 0; r < rows; r++) {
        const line = packed.subarray(r * words, (r + 1) * words);
        for (let c = 0; c < cols; c++) putBits(line, c * bits, made.codes[r][c], bits);
      }
      const stem = stemOf(name);
      const out = [
        raw(`${stem}.weight_packed`, "I32", [rows, words], packed),
        raw(`${stem}.weight_scale`, "F32", [rows, made.groups], Float32Array.from(made.scales.flat())),
        raw(`${stem}.weight_shape`, "I64", [2], BigInt64Array.from([BigInt(rows), BigInt(cols)])),
      ];
      if (order) out.push(raw(`${stem}.weight_g_idx`, "I32", [cols], Int32Array.from(made.groupOf)));
      if (!symmetric) {
        const zeroWords = Math.ceil((rows * bits) / 32);
        const zeros = new Int32Array(zeroWords * made.groups);
        const column = new Int32Array(zeroWords);
        for (let g = 0; g < made.groups; g++) {
          column.fill(0);
          for (let r = 0; r < rows; r++) putBits(column, r * bits, made.zeros[r][g], bits);
          for (let w = 0; w < zeroWords; w++) zeros[w * made.groups + g] = column[w];
        }
        out.push(raw(`${stem}.weight_zero_point`, "I32", [zeroWords, made.groups], zeros));
      }
      return { expected: made.expected, raw: out };
    },
  };
}

/** @returns {Store} */
function intQuantized() {
  return {
    record: compressed("int-quantized", { num_bits: 8, type: "int", symmetric: true, strategy: "channel" }),
    parts(name, dense) {
      const made = toGroups(dense, { bits: 8, groupSize: -1, symmetric: true, scale: f32 });
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(
            `${stem}.weight`,
            "I8",
            dense.shape,
            Int8Array.from(made.codes.flat(), (code) => code - 128),
          ),
          raw(`${stem}.weight_scale`, "F32", [dense.shape[0], 1], Float32Array.from(made.scales.flat())),
          raw(`${stem}.input_scale`, "F32", [1], Float32Array.of(0.5)),
        ],
      };
    },
  };
}

/** The numbers of a small float with a sign, in the order of their bits. */
function numbersOf(exponentBits, fractionBits, isNumber) {
  const bias = 2 ** (exponentBits - 1) - 1;
  const count = 2 ** (exponentBits + fractionBits);
  const positive = [];
  for (let bits = 0; bits < count; bits++) {
    const [exponent, fraction] = [Math.floor(bits / 2 ** fractionBits), (bits % 2 ** fractionBits) / 2 ** fractionBits];
    positive.push(exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
  }
  return positive.filter((_, bits) => isNumber(bits));
}
const e4m3 = numbersOf(4, 3, (bits) => bits !== 127);
const e2m1 = numbersOf(2, 1, () => true);

/** The code of the nearest number; `signBit` for negatives. */
function nearest(numbers, value, signBit) {
  const magnitude = Math.abs(value);
  let [low, high] = [0, numbers.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= magnitude) low = middle;
    else high = middle;
  }
  const code = magnitude - numbers[low] <= numbers[high] - magnitude ? low : high;
  return [code | (value < 0 ? signBit : 0), (value < 0 ? -1 : 1) * numbers[code]];
}

/** Tiles of [tileRows, tileCols] that share a scale, which brings their largest to `top`. */
function toTiles({ shape: [rows, cols], values }, [tileRows, tileCols], { numbers, signBit, top, scale }) {
  const [down, across] = [Math.ceil(rows / tileRows), Math.ceil(cols / tileCols)];
  const scales = new Float32Array(down * across);
  const scaleBits = [];
  const codes = new Uint8Array(rows * cols);
  const expected = new Float32Array(rows * cols);
  for (let i = 0; i < down; i++) {
    for (let j = 0; j < across; j++) {
      const entries = [];
      for (let r = i * tileRows; r < Math.min(rows, (i + 1) * tileRows); r++) {
        for (let c = j * tileCols; c < Math.min(cols, (j + 1) * tileCols); c++) entries.push(r * cols + c);
      }
      const largest = entries.reduce((most, at) => Math.max(most, Math.abs(values[at])), 0);
      const [stored, held] = scale(largest === 0 ? 1 : largest / top);
      scales[i * across + j] = held;
      scaleBits.push(stored);
      for (const at of entries) {
        const [code, number] = nearest(numbers, values[at] / held, signBit);
        codes[at] = code;
        expected[at] = number * held;
      }
    }
  }
  return { codes, scales, scaleBits, expected, tiles: [down, across] };
}
const asE4m3 = { numbers: e4m3, signBit: 128, top: 448, scale: f32 };

/** @returns {Store} */
function floatQuantized(strategy, tile) {
  return {
    record: compressed("float-quantized", {
      num_bits: 8,
      type: "float",
      symmetric: true,
      strategy,
      block_structure: strategy === "block" ? tile : null,
    }),
    parts(name, dense) {
      const [rows, cols] = dense.shape;
      const made = toTiles(dense, { tensor: [rows, cols], channel: [1, cols], block: tile }[strategy], asE4m3);
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(`${stem}.weight`, "F8_E4M3", dense.shape, made.codes),
          raw(`${stem}.weight_scale`, "F32", strategy === "tensor" ? [1] : made.tiles, made.scales),
        ],
      };
    },
  };
}

/** @returns {Store} */
function deepseekFp8(tile) {
  return {
    record: { quant_method: "fp8", fmt: "e4m3", activation_scheme: "dynamic", weight_block_size: tile },
    parts(name, dense) {
      const made = toTiles(dense, tile, asE4m3);
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(`${stem}.weight`, "F8_E4M3", dense.shape, made.codes),
          raw(`${stem}.weight_scale_inv`, "F32", made.tiles, made.scales),
        ],
      };
    },
  };
}

/** The first of each two codes in the low half. */
const halves = (codes) =>
  Uint8Array.from({ length: codes.length / 2 }, (_, i) => codes[2 * i] | (codes[2 * i + 1] << 4));

/** @returns {Store} */
function nvfp4() {
  const global = 64;
  const scale = (value) => {
    const [code, number] = nearest(e4m3, value * global, 128);
    return [code || 1, (number || e4m3[1]) / global];
  };
  return {
    record: compressed("nvfp4-pack-quantized", {
      num_bits: 4,
      type: "float",
      symmetric: true,
      strategy: "tensor_group",
      group_size: 16,
    }),
    parts(name, dense) {
      const [rows, cols] = dense.shape;
      const made = toTiles(dense, [1, 16], { numbers: e2m1, signBit: 8, top: 6, scale });
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(`${stem}.weight_packed`, "U8", [rows, cols / 2], halves(made.codes)),
          raw(`${stem}.weight_scale`, "F8_E4M3", made.tiles, Uint8Array.from(made.scaleBits)),
          raw(`${stem}.weight_global_scale`, "F32", [1], Float32Array.of(global)),
        ],
      };
    },
  };
}

const powerOfTwo = (value) => {
  const exponent = Math.ceil(Math.log2(value));
  return [exponent + 127, 2 ** exponent];
};
const asMxfp4 = { numbers: e2m1, signBit: 8, top: 6, scale: powerOfTwo };

/** @returns {Store} */
function mxfp4Packed() {
  return {
    record: compressed("mxfp4-pack-quantized", {
      num_bits: 4,
      type: "float",
      symmetric: true,
      strategy: "group",
      group_size: 32,
    }),
    parts(name, dense) {
      const [rows, cols] = dense.shape;
      const made = toTiles(dense, [1, 32], asMxfp4);
      const stem = stemOf(name);
      return {
        expected: made.expected,
        raw: [
          raw(`${stem}.weight_packed`, "U8", [rows, cols / 2], halves(made.codes)),
          raw(`${stem}.weight_scale`, "U8", made.tiles, Uint8Array.from(made.scaleBits)),
        ],
      };
    },
  };
}

/** Stacks [experts, in, out], whose columns are what is quantised. @returns {Store} */
function mxfp4Stacks() {
  return {
    record: { quant_method: "mxfp4", modules_to_not_convert: ["model.layers.*.self_attn", "lm_head"] },
    parts(name, { shape: [experts, inputs, outputs], values }) {
      const turned = new Float32Array(values.length);
      const place = (e, i, o) => (e * inputs + i) * outputs + o;
      for (let e = 0, at = 0; e < experts; e++) {
        for (let o = 0; o < outputs; o++) for (let i = 0; i < inputs; i++, at++) turned[at] = values[place(e, i, o)];
      }
      const made = toTiles({ shape: [experts * outputs, inputs], values: turned }, [1, 32], asMxfp4);
      const expected = new Float32Array(values.length);
      for (let e = 0, at = 0; e < experts; e++) {
        for (let o = 0; o < outputs; o++)
          for (let i = 0; i < inputs; i++, at++) expected[place(e, i, o)] = made.expected[at];
      }
      return {
        expected,
        raw: [
          raw(`${name}_blocks`, "U8", [experts, outputs, inputs / 32, 16], halves(made.codes)),
          raw(`${name}_scales`, "U8", [experts, outputs, inputs / 32], Uint8Array.from(made.scaleBits)),
        ],
      };
    },
  };
}

/** Quantiles of a normal distribution, as QLoRA's appendix E lists them. */
const nf4 = [
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
];

/** @returns {Store} */
function bitsandbytes4({ nested }) {
  const blockSize = 64;
  const nestedSize = 256;
  return {
    record: {
      quant_method: "bitsandbytes",
      load_in_4bit: true,
      bnb_4bit_quant_type: "nf4",
      bnb_4bit_use_double_quant: nested,
    },
    parts(name, { shape, values }) {
      const blocks = Math.ceil(values.length / blockSize);
      let absmax = Float32Array.from({ length: blocks }, (_, b) =>
        values
          .subarray(b * blockSize, (b + 1) * blockSize)
          .reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9),
      );
      const map = Float32Array.from(nf4);
      const parts = [raw(`${name}.quant_map`, "F32", [16], map)];
      const state = { quant_type: "nf4", blocksize: blockSize, dtype: "float16", shape };
      if (nested) {
        const offset = Math.fround(absmax.reduce((sum, value) => sum + value, 0) / blocks);
        const nestedMap = Float32Array.from({ length: 256 }, (_, i) => (i - 128) / 128);
        const nestedAbsmax = Float32Array.from({ length: Math.ceil(blocks / nestedSize) }, (_, n) =>
          absmax
            .subarray(n * nestedSize, (n + 1) * nestedSize)
            .reduce((most, v) => Math.max(most, Math.abs(v - offset)), 1e-9),
        );
        const codes = Uint8Array.from(absmax, (value, b) =>
          Math.max(
            0,
            Math.min(255, Math.round(((value - offset) / nestedAbsmax[Math.floor(b / nestedSize)]) * 128) + 128),
          ),
        );
        absmax = Float32Array.from(
          codes,
          (code, b) => nestedMap[code] * nestedAbsmax[Math.floor(b / nestedSize)] + offset,
        );
        Object.assign(state, { nested_blocksize: nestedSize, nested_dtype: "float32", nested_offset: offset });
        parts.push(
          raw(`${name}.absmax`, "U8", [blocks], codes),
          raw(`${name}.nested_absmax`, "F32", [nestedAbsmax.length], nestedAbsmax),
          raw(`${name}.nested_quant_map`, "F32", [256], nestedMap),
        );
      } else parts.push(raw(`${name}.absmax`, "F32", [blocks], absmax));
      const codes = Uint8Array.from(values, (value, i) => {
        const wanted = value / absmax[Math.floor(i / blockSize)];
        let best = 0;
        for (let code = 1; code < 16; code++)
          if (Math.abs(map[code] - wanted) < Math.abs(map[best] - wanted)) best = code;
        return best;
      });
      const packed = Uint8Array.from({ length: codes.length / 2 }, (_, i) => (codes[2 * i] << 4) | codes[2 * i + 1]);
      const stateBytes = new TextEncoder().encode(JSON.stringify(state));
      parts.push(
        raw(name, "U8", [packed.length, 1], packed),
        raw(`${name}.quant_state.bitsandbytes__nf4`, "U8", [stateBytes.length], stateBytes),
      );
      return {
        raw: parts,
        expected: Float32Array.from(codes, (code, i) => map[code] * absmax[Math.floor(i / blockSize)]),
      };
    },
  };
}

/** @returns {Store} */
function bitsandbytes8() {
  return {
    record: { quant_method: "bitsandbytes", load_in_8bit: true, llm_int8_threshold: 6 },
    parts(name, { shape: [rows, cols], values }) {
      const largest = Float32Array.from({ length: rows }, (_, r) =>
        values.subarray(r * cols, (r + 1) * cols).reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9),
      );
      const codes = Int8Array.from(values, (value, i) => Math.round((value / largest[Math.floor(i / cols)]) * 127));
      return {
        expected: Float32Array.from(codes, (code, i) => (code * largest[Math.floor(i / cols)]) / 127),
        raw: [
          raw(name, "I8", [rows, cols], codes),
          raw(`${stemOf(name)}.SCB`, "F32", [rows], largest),
          raw(`${stemOf(name)}.weight_format`, "U8", [], Uint8Array.of(0)),
        ],
      };
    },
  };
}

/** @type {Record<string, Store>} */
export const stores = {
  "gptq 4 bits": gptq({ bits: 4, groupSize: 32, symmetric: true }),
  "gptq 2 bits": gptq({ bits: 2, groupSize: 32, symmetric: false }),
  "gptq 3 bits": gptq({ bits: 3, groupSize: 32, symmetric: false }),
  "gptq 8 bits": gptq({ bits: 8, groupSize: -1, symmetric: false }),
  "gptq act-order": gptq({ bits: 4, groupSize: 64, symmetric: false, ordered: true }),
  "gptq v2": gptq({ bits: 4, groupSize: 32, symmetric: false, version: 2 }),
  awq: awq({ groupSize: 32 }),
  "pack-quantized 4 bits": packQuantized({ bits: 4, groupSize: 32, symmetric: true }),
  "pack-quantized asymmetric": packQuantized({ bits: 4, groupSize: 32, symmetric: false }),
  "pack-quantized act-order": packQuantized({ bits: 4, groupSize: 32, symmetric: true, ordered: true }),
  "pack-quantized 8 bits": packQuantized({ bits: 8, groupSize: -1, symmetric: true }),
  "pack-quantized 3 bits": packQuantized({ bits: 3, groupSize: 32, symmetric: true }),
  "marlin-24 4 bits": storeMarlin24({ bits: 4, groupSize: 128 }),
  "marlin-24 8 bits": storeMarlin24({ bits: 8, groupSize: -1 }),
  "int-quantized": intQuantized(),
  "float-quantized tensor": floatQuantized("tensor"),
  "float-quantized channel": floatQuantized("channel"),
  "float-quantized block": floatQuantized("block", [128, 128]),
  "fp8 blocks": deepseekFp8([128, 128]),
  "nvfp4-pack-quantized": nvfp4(),
  "mxfp4-pack-quantized": mxfp4Packed(),
  nf4: bitsandbytes4({ nested: false }),
  "nf4 nested": bitsandbytes4({ nested: true }),
  "LLM.int8()": bitsandbytes8(),
};

/** Of stacks of experts only. */
export const stackStores = { mxfp4: mxfp4Stacks() };
