import * as z from "zod/mini";
import type { DType, TensorInfo } from "../../tensor/index.js";
import type { EncodedTensor } from "../encoding/index.js";
import { unpackCodes } from "../encoding/index.js";
import { heldToTheEnd } from "../heldToTheEnd.js";
import { doubledBits, doubledFp4 } from "./fp4.js";
import { fp8Types } from "./fp8.js";
import { marlin24Parts, openMarlin24 } from "./marlin24.js";
import type { MatrixParts } from "./matrixParts.js";
import { groupsOf, type ReadNumbers, type ScaledMatrix, scaledTensor, tiled, turnedColumns } from "./scaled.js";
import { type Scheme, schemeOf, type Tile, weightArguments } from "./schemes.js";
import { checkRecord, type SourceFormat, stemBefore, unread } from "./sourceFormat.js";
import { codesOfColumns, wordsOf } from "./words.js";

const settings = z.object({
  format: z.nullish(z.string()),
  config_groups: z.record(z.string(), z.object({ weights: z.nullish(weightArguments), format: z.nullish(z.string()) })),
});

/** `format` of a model or of a group → whether it is read. */
const formats: readonly string[] = [
  "dense",
  "pack-quantized",
  "int-quantized",
  "float-quantized",
  "naive-quantized",
  "nvfp4-pack-quantized",
  "mxfp4-pack-quantized",
  "mxfp8-quantized",
  "marlin-24",
  "mixed-precision",
];

/**
 * Compressed-tensors (llm-compressor). A matrix tells by its parts how it lies: `weight_packed` holds integers (I32) or FP4 (U8),
 * `weight` integers or FP8 of a byte each. Its scales, `weight_scale`, fit the scheme of one of the `config_groups`. W = scale · (code
 * − zero).
 */
export const compressedTensors: SourceFormat = {
  title: "compressed-tensors",
  reader(record, file) {
    const given = checkRecord(settings, record, file);
    const groups = Object.values(given.config_groups);
    for (const format of [given.format, ...groups.map(({ format }) => format)]) {
      if (format == null || formats.includes(format)) continue;
      throw unread(
        file,
        "format",
        `compressed-tensors in the layout "${format.slice(0, 60)}" is not read`,
        formats.join(", "),
      );
    }
    const schemes = groups.flatMap(({ weights }) => weights ?? []);
    return {
      details: given.format ?? "by matrix",
      stemOf: (name, { dtype }) =>
        stemBefore(name, ".weight_scale") ??
        stemBefore(name, ".weight_packed") ??
        (isByte(dtype) ? stemBefore(name, ".weight") : undefined),
      open: (parts) => openMatrix(parts, schemes),
    };
  },
};

const isByte = (dtype: DType) => dtype === "I8" || fp8Types.includes(dtype);

async function openMatrix(parts: MatrixParts, schemes: readonly Scheme[]): Promise<EncodedTensor | undefined> {
  const packed = parts.optional(".weight_packed", ["I32", "U8"]);
  if (packed?.dtype === "U8") return openFp4(parts, packed, schemes);
  if (packed !== undefined) {
    const isMarlin24 = Object.values(marlin24Parts).some((part) => parts.optional(part) !== undefined);
    return isMarlin24 ? openMarlin24(parts, packed, schemes) : openWords(parts, packed, schemes);
  }
  const weight = parts.part(".weight", ["I8", ...fp8Types, "F32", "F16", "BF16"], 2);
  if (isByte(weight.dtype)) return openBytes(parts, weight, schemes);
  // Scales beside plain values: they are rounded to the grid already.
  parts.optional(".weight_scale");
  parts.optional(".weight_zero_point");
  return undefined;
}

/** Integers without gaps in words of 32 bits, each row by itself; zeros likewise, each column by itself. */
async function openWords(parts: MatrixParts, packed: TensorInfo, schemes: readonly Scheme[]): Promise<EncodedTensor> {
  const [rows, cols] = await readShape(parts);
  const [storedRows, words] = packed.shape;
  const { scheme, tile } = schemeOf(parts, [rows, cols], storedScales(parts), schemes, ({ type, num_bits: bits }) => {
    return type === "int" && bits <= 8 && storedRows === rows && wordsOf(cols, bits) === words;
  });
  const bits = scheme.num_bits;
  const half = 2 ** (bits - 1);
  const zeros = scheme.symmetric ? undefined : packedZeros(parts, [rows, cols], tile, bits);
  if (scheme.symmetric) parts.optional(".weight_zero_point");
  return integers(parts, [rows, cols], scheme, tile, {
    zeros,
    async numbers(start, count) {
      const bytes = await parts.read(".weight_packed", start * words * 4, count * words * 4);
      const out = new Float32Array(count * cols);
      for (let r = 0; r < count; r++) {
        const codes = unpackCodes(bytes, bits, r * words * 32, cols);
        for (let c = 0; c < cols; c++) out[r * cols + c] = codes[c] - half;
      }
      return out;
    },
  });
}

function packedZeros(
  parts: MatrixParts,
  [rows, cols]: readonly [number, number],
  [tileRows, tileCols]: Tile,
  bits: number,
): ReadNumbers {
  const groups = Math.ceil(cols / tileCols);
  if (tileRows !== 1) throw parts.fail("zeros for more than one row", "strategy group or channel");
  const stored = parts.part(".weight_zero_point", ["I32"], 2);
  parts.checkShape(".weight_zero_point", stored, [wordsOf(rows, bits), groups]);
  const held = heldToTheEnd(rows, async () =>
    codesOfColumns(await parts.read(".weight_zero_point"), groups, bits, rows, 0, groups),
  );
  return async (start, count) => {
    const codes = turnedColumns(await held(start, count), rows, start, count);
    return codes.map((code) => code - 2 ** (bits - 1));
  };
}

/** Integers or FP8, a byte each. */
function openBytes(parts: MatrixParts, { shape, dtype }: TensorInfo, schemes: readonly Scheme[]): EncodedTensor {
  const [rows, cols] = shape;
  const type = dtype === "I8" ? "int" : "float";
  const fits = (scheme: Scheme) => scheme.type === type && scheme.num_bits <= 8;
  const { scheme, tile } = schemeOf(parts, [rows, cols], storedScales(parts), schemes, fits);
  const numbers: ReadNumbers = (start, count) => parts.numbers(".weight", start * cols, count * cols);
  if (type === "int") {
    const zeros = scheme.symmetric ? undefined : byteZeros(parts, [rows, cols], tile);
    if (scheme.symmetric) parts.optional(".weight_zero_point");
    return integers(parts, [rows, cols], scheme, tile, { numbers, zeros });
  }
  if (!scheme.symmetric) throw parts.fail("floats with zeros are not read", "a symmetric scheme");
  parts.optional(".weight_zero_point");
  const encoding = dtype === "F8_E4M3" ? "FP8 E4M3" : "FP8 E5M2";
  const scales = scalesOf(parts, [rows, cols], tile);
  return scaledTensor({ shape: [rows, cols], encoding, groupSize: tile[1], numbers, ...scales }, parts);
}

function byteZeros(parts: MatrixParts, shape: readonly [number, number], tile: Tile): ReadNumbers {
  const stored = parts.part(".weight_zero_point", ["I8"]);
  parts.checkShape(".weight_zero_point", stored, storedScales(parts).shape);
  return tiled(shape, tile, (first, count) => parts.numbers(".weight_zero_point", first, count));
}

function integers(
  parts: MatrixParts,
  shape: readonly [number, number],
  { num_bits: bits, symmetric }: Scheme,
  tile: Tile,
  read: Pick<ScaledMatrix, "numbers" | "zeros">,
): EncodedTensor {
  const order = parts.optional(".weight_g_idx", ["I32"]);
  if (order !== undefined) parts.checkShape(".weight_g_idx", order, [shape[1]]);
  const groups = Math.ceil(shape[1] / tile[1]);
  const gridBits = symmetric ? bits : bits + 1;
  return scaledTensor(
    {
      shape,
      encoding: `compressed-tensors ${bits} bits`,
      groupSize: tile[1],
      ...(gridBits <= 8 && { bits: Math.max(gridBits, 2) }),
      ...(order !== undefined && groups > 1 && { groupOf: groupsOf(parts, ".weight_g_idx", groups) }),
      ...read,
      ...scalesOf(parts, shape, tile),
    },
    parts,
  );
}

/** FP4 (E2M1): NVFP4 with scales in FP8 and one for the matrix that divides them, or MXFP4 with powers of two. */
function openFp4(parts: MatrixParts, packed: TensorInfo, schemes: readonly Scheme[]): EncodedTensor {
  if (packed.shape.length !== 2) throw parts.fail(`its part .weight_packed has ${packed.shape.length} dimensions`, "2");
  const [rows, bytes] = packed.shape;
  const shape = [rows, bytes * 2] as const;
  const fits = ({ type, num_bits: bits, symmetric }: Scheme) => type === "float" && bits === 4 && symmetric;
  const { tile } = schemeOf(parts, shape, storedScales(parts), schemes, fits);
  const global = parts.optional(".weight_global_scale", ["F32"]);
  if (global !== undefined) parts.checkShape(".weight_global_scale", global, [1]);
  const { scales, scaleDType } = scalesOf(parts, shape, tile);
  return scaledTensor(
    {
      shape,
      encoding: global === undefined ? "MXFP4" : "NVFP4",
      groupSize: tile[1],
      bits: doubledBits,
      scaleDType,
      numbers: async (start, count) => doubledFp4(await parts.read(".weight_packed", start * bytes, count * bytes)),
      async scales(start, count) {
        const divisor = global === undefined ? 1 : (await parts.numbers(".weight_global_scale"))[0];
        return (await scales(start, count)).map((scale) => Math.fround(scale / divisor) / 2);
      },
    },
    parts,
  );
}

const scaleTypes = ["F32", "F16", "BF16", "F8_E4M3", "U8", "F8_E8M0"] as const;
const storedScales = (parts: MatrixParts) => parts.part(".weight_scale", scaleTypes);

/** Powers of two as their exponents are U8, or F8_E8M0. */
function scalesOf(
  parts: MatrixParts,
  shape: readonly [number, number],
  tile: Tile,
): Pick<ScaledMatrix, "scales" | "scaleDType"> {
  const { dtype } = storedScales(parts);
  const scales = tiled(shape, tile, async (first, count) => {
    const stored = await parts.numbers(".weight_scale", first, count);
    return dtype === "U8" ? stored.map((exponent) => 2 ** (exponent - 127)) : stored;
  });
  return { scales, scaleDType: dtype === "F16" || dtype === "BF16" ? dtype : "F32" };
}

/** `weight_shape` I64 or I32 [2]: that of the matrix, whose rows the words may leave open. */
async function readShape(parts: MatrixParts): Promise<[number, number]> {
  const stored = parts.part(".weight_shape", ["I64", "I32"]);
  parts.checkShape(".weight_shape", stored, [2]);
  const bytes = await parts.read(".weight_shape");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = (i: number) =>
    stored.dtype === "I64" ? Number(view.getBigInt64(i * 8, true)) : view.getInt32(i * 4, true);
  const shape: [number, number] = [at(0), at(1)];
  if (shape.every((size) => size >= 1 && size <= 2 ** 31)) return shape;
  throw parts.fail(`its part .weight_shape says [${shape.join(", ")}]`, "sizes from 1 to 2³¹");
}
