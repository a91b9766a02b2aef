import { groupSize } from "../../pack/index.js";
import { dtypeBytes, firstNonFinite, toFloat32 } from "../../tensor/index.js";
import type { RowSource } from "../backend.js";

/** Rows of a source, and the scales of the grid they lie on where there is one: what the packers of src/pack take. */
export interface Tile {
  /** f32 [count, cols] */
  weights: Float32Array;
  /** f32 [count, ⌈cols / 32⌉] */
  scales?: Float32Array;
}

export async function readTile(source: RowSource, start: number, count: number): Promise<Tile> {
  const { cols, dtype } = source;
  const bytes = new Uint8Array(count * cols * dtypeBytes[dtype]);
  await source.read(start, count, bytes);
  if (firstNonFinite(dtype, bytes) >= 0) await source.onNonFinite?.(start, count);
  const weights = toFloat32(dtype, bytes);
  if (source.scales === undefined) return { weights };
  const scales = new Float32Array(count * Math.ceil(cols / groupSize));
  await source.scales(start, count, scales);
  return { weights, scales };
}
