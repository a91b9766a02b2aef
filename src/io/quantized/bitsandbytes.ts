import * as z from "zod/mini";
import { quote } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { dtypeBytes, elementCount } from "../../tensor/index.js";
import type { EncodedTensor } from "../encoding/index.js";
import { parseJson } from "../json.js";
import type { MatrixParts } from "./matrixParts.js";
import { scaledTensor } from "./scaled.js";
import { checkRecord, type SourceFormat, stemBefore } from "./sourceFormat.js";

const settings = z.object({
  load_in_4bit: z.nullish(z.boolean()),
  load_in_8bit: z.nullish(z.boolean()),
  bnb_4bit_quant_type: z.nullish(z.string()),
});

/** bitsandbytes: 4 bits by a table (QLoRA, arXiv 2305.14314) and 8 bits by rows (LLM.int8(), arXiv 2208.07339). */
export const bitsandbytes: SourceFormat = {
  title: "bitsandbytes",
  reader(record, file) {
    const given = checkRecord(settings, record, file);
    const eight = given.load_in_8bit === true;
    return {
      details: eight ? "LLM.int8()" : `${(given.bnb_4bit_quant_type ?? "4 bits").toUpperCase()}, a table of 16 values`,
      stemOf: (name, { dtype }) => (dtype === "I8" || dtype === "U8" ? stemBefore(name, ".weight") : undefined),
      open: (parts) => (parts.part(".weight", ["I8", "U8"]).dtype === "I8" ? openRows(parts) : openTable(parts)),
    };
  },
};

/** `weight` I8 [rows, cols] and `SCB` F32 [rows], the largest magnitude of a row: W = SCB / 127 · weight. */
async function openRows(parts: MatrixParts): Promise<EncodedTensor> {
  const { shape } = parts.part(".weight", ["I8"], 2);
  const [rows, cols] = shape;
  parts.checkShape(".SCB", parts.part(".SCB", ["F32"], 1), [rows]);
  // Layouts of the matrix units of old cards have other numbers.
  if (parts.optional(".weight_format", ["U8", "I8", "I64", "I32"]) !== undefined) {
    const [layout] = await parts.read(".weight_format");
    if (layout !== 0) throw parts.fail(`weights in layout ${layout} are not read`, "rows, layout 0");
  }
  return scaledTensor(
    {
      shape: [rows, cols],
      encoding: "LLM.int8()",
      groupSize: cols,
      bits: 8,
      numbers: (start, count) => parts.numbers(".weight", start * cols, count * cols),
      scales: async (start, count) => (await parts.numbers(".SCB", start, count)).map((largest) => largest / 127),
    },
    parts,
  );
}

const size = z.int().check(z.gte(1), z.lte(2 ** 31));
const quantState = z.object({
  quant_type: z.enum(["nf4", "fp4"]),
  blocksize: size,
  shape: z.array(size).check(z.length(2)),
  nested_blocksize: z.nullish(size),
  nested_offset: z.nullish(z.number()),
});
const maxStateBytes = 65_536;

/**
 * `weight` U8, two codes in a byte, the first in the high half; `weight.absmax`, one for `blocksize` entries of the matrix, whose
 * rows follow one another; `weight.quant_map` F32 [16], what codes stand for; `weight.quant_state.bitsandbytes__nf4` (or fp4), JSON
 * as bytes. W = absmax · map[code]. Where the scales are quantised too, `absmax` is U8 and stands for
 * nested_absmax · nested_map[absmax] + nested_offset.
 */
async function openTable(parts: MatrixParts): Promise<EncodedTensor> {
  const stored = parts.part(".weight", ["U8"]);
  const state = await readState(parts);
  const [rows, cols] = state.shape;
  const packed = elementCount(stored.shape);
  if (Math.ceil((rows * cols) / 2) !== packed) {
    throw parts.fail(`${packed} bytes of codes for [${rows}, ${cols}]`, `${Math.ceil((rows * cols) / 2)}`);
  }
  const blocks = Math.ceil((rows * cols) / state.blocksize);
  parts.checkShape(".weight.quant_map", parts.part(".weight.quant_map", ["F32"], 1), [16]);
  const absmax = parts.part(".weight.absmax", ["F32", "U8"], 1);
  parts.checkShape(".weight.absmax", absmax, [blocks]);
  const nestedSize = state.nested_blocksize ?? 256;
  if (absmax.dtype === "U8") {
    const nested = parts.part(".weight.nested_absmax", ["F32"], 1);
    parts.checkShape(".weight.nested_absmax", nested, [Math.ceil(blocks / nestedSize)]);
    parts.checkShape(".weight.nested_quant_map", parts.part(".weight.nested_quant_map", ["F32"], 1), [256]);
  }

  /** Scales of blocks [first, first + count). */
  async function scalesOf(first: number, count: number): Promise<Float32Array> {
    if (absmax.dtype === "F32") return parts.numbers(".weight.absmax", first, count);
    const codes = await parts.read(".weight.absmax", first, count);
    const map = await parts.numbers(".weight.nested_quant_map");
    const firstNested = Math.floor(first / nestedSize);
    const nestedCount = Math.floor((first + count - 1) / nestedSize) + 1 - firstNested;
    const nested = await parts.numbers(".weight.nested_absmax", firstNested, nestedCount);
    const offset = state.nested_offset ?? 0;
    return Float32Array.from(codes, (code, i) => {
      return Math.fround(map[code] * nested[Math.floor((first + i) / nestedSize) - firstNested]) + offset;
    });
  }
  return {
    info: {
      name: `${parts.stem}.weight`,
      dtype: "F32",
      shape: [rows, cols],
      encoding: state.quant_type.toUpperCase(),
      storedBytes: parts.storedBytes,
    },
    async readRows(start, count) {
      const [first, end] = [start * cols, (start + count) * cols];
      const firstByte = Math.floor(first / 2);
      const bytes = await parts.read(".weight", firstByte, Math.ceil(end / 2) - firstByte);
      const map = await parts.numbers(".weight.quant_map");
      const firstBlock = Math.floor(first / state.blocksize);
      const scales = await scalesOf(firstBlock, Math.ceil(end / state.blocksize) - firstBlock);
      const out = new Float32Array(end - first);
      for (let i = first; i < end; i++) {
        const byte = bytes[Math.floor(i / 2) - firstByte];
        out[i - first] =
          scales[Math.floor(i / state.blocksize) - firstBlock] * map[i % 2 === 0 ? byte >> 4 : byte & 15];
      }
      return new Uint8Array(out.buffer, 0, out.length * dtypeBytes.F32);
    },
  };
}

async function readState(parts: MatrixParts): Promise<z.output<typeof quantState>> {
  for (const kind of ["nf4", "fp4"]) {
    const suffix = `.weight.quant_state.bitsandbytes__${kind}`;
    const found = parts.optional(suffix, ["U8"]);
    if (found === undefined) continue;
    if (elementCount(found.shape) > maxStateBytes)
      throw parts.fail(`its part ${suffix} is longer than ${maxStateBytes}`);
    const file = `${parts.raw.location}: ${parts.stem}${suffix}`;
    return checkSchema(quantState, parseJson(await parts.read(suffix), file), file);
  }
  throw parts.fail(`its part ${quote(".weight.quant_state.bitsandbytes__nf4")} is missing`);
}
