import type { ChosenUnits } from "../../arch/internal.js";
import type { Backend } from "../../kernels/index.js";
import { dtypeBytes, fromFloat32, toFloat32 } from "../../tensor/index.js";
import { rowsFormat } from "../footprint.js";
import { storedMap } from "../forms.js";
import type { LoadModelOptions } from "../loadOptions.js";
import { type TensorSource, tensorRows, unheard } from "../tensorRows.js";
import type { UnitRows } from "./loaded.js";

/** Rows that are read at once. */
const atOnce = 256;

/**
 * Copies the rows of the map that makes units to where single ones can be multiplied with. Undefined where the backend has no such
 * memory, or the map is stored as a product.
 */
export async function loadRows(
  { linear }: ChosenUnits,
  weights: TensorSource,
  backend: Backend,
  options: Pick<LoadModelOptions, "weights" | "signal">,
): Promise<UnitRows | undefined> {
  const { map, direct, lowRank, factors } = storedMap(linear.maps[0].map, weights.tensors);
  if (backend.openArea === undefined || direct === undefined || lowRank || factors || map.bias) return undefined;
  const { rows, cols } = map;
  const source = tensorRows(weights, direct, rows, unheard);
  const format = rowsFormat(options.weights);
  const rowBytes = cols * (format === "f32" ? 4 : 2);
  const area = await backend.openArea(rows * rowBytes);
  try {
    for (let first = 0; first < rows; first += atOnce) {
      options.signal?.throwIfAborted();
      const count = Math.min(atOnce, rows - first);
      const bytes = new Uint8Array(count * cols * dtypeBytes[source.dtype]);
      await source.read(first, count, bytes);
      const packed = fromFloat32(format === "f32" ? "F32" : "BF16", toFloat32(source.dtype, bytes));
      area.bytes(first * rowBytes, count * rowBytes).set(packed);
    }
  } catch (error) {
    area[Symbol.dispose]();
    throw error;
  }
  return { area, format, cols };
}
