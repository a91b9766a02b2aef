import * as z from "zod/mini";
import type { DType } from "../../tensor/index.js";
import type { MatrixParts } from "./matrixParts.js";
import { scaledTensor, tiled } from "./scaled.js";
import { checkRecord, type SourceFormat, stemBefore } from "./sourceFormat.js";

const side = z.int().check(z.gte(1), z.lte(2 ** 20));
const settings = z.object({ weight_block_size: z.nullish(z.tuple([side, side])) });

export const fp8Types: readonly DType[] = ["F8_E4M3", "F8_E5M2"];
const scaleTypes: readonly DType[] = ["F32", "BF16", "F16", "F8_E8M0"];

/**
 * Eight-bit floats with scales in f32: one for every `weight_block_size` entries (`weight_scale_inv`, DeepSeek-V3, arXiv
 * 2412.19437), for a row or for a matrix (`weight_scale`). W = scale · weight, whatever the name says.
 */
export const fp8: SourceFormat = {
  title: "FP8",
  reader(record, file) {
    const block = checkRecord(settings, record, file).weight_block_size ?? undefined;
    return {
      details: block === undefined ? "a scale a matrix or a row" : `blocks of ${block.join(" × ")}`,
      stemOf: (name, { dtype }) => (fp8Types.includes(dtype) ? stemBefore(name, ".weight") : undefined),
      open: async (parts) => openMatrix(parts, block),
    };
  },
};

function openMatrix(parts: MatrixParts, block: readonly [number, number] | undefined) {
  const { shape, dtype } = parts.part(".weight", fp8Types, 2);
  const [rows, cols] = shape;
  const suffix = parts.optional(".weight_scale") === undefined ? ".weight_scale_inv" : ".weight_scale";
  const stored = parts.part(suffix, scaleTypes);
  const count = stored.shape.reduce((all, size) => all * size, 1);
  const tile = block ?? (count === 1 ? [rows, cols] : [1, cols]);
  if (block !== undefined) parts.checkShape(suffix, stored, [Math.ceil(rows / tile[0]), Math.ceil(cols / tile[1])]);
  else if (count !== 1 && count !== rows) throw parts.fail(`its part ${suffix} has ${count} scales`, `1 or ${rows}`);
  return scaledTensor(
    {
      shape: [rows, cols],
      encoding: dtype === "F8_E4M3" ? "FP8 E4M3" : "FP8 E5M2",
      groupSize: tile[1],
      numbers: (start, count) => parts.numbers(".weight", start * cols, count * cols),
      scales: tiled([rows, cols], [tile[0], tile[1]], (first, count) => parts.numbers(suffix, first, count)),
    },
    parts,
  );
}
