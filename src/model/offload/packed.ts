import type { LinearSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { packedRowsOf } from "../../kernels/index.js";
import { packRows, padded, type WeightFormatId, weightFormats } from "../../pack/index.js";
import { dtypeBytes, toFloat32 } from "../../tensor/index.js";
import { storedMap } from "../forms.js";
import { type TensorSource, tensorRows } from "../tensorRows.js";

const unheard = { onRead() {}, onSuspect() {} };

/** @throws UsageError for maps that are stored as factors, of which no single input or expert can be read */
export function checkWhole(source: TensorSource, maps: readonly LinearSpec[]): void {
  for (const map of maps) {
    const { lowRank, factors } = storedMap(map, source.tensors);
    if (lowRank === undefined && factors === undefined) continue;
    throw new UsageError(`${map.weight.tensor} as factors cannot be offloaded`);
  }
}

/** A matrix of the checkpoint in memory: f32 rows, and the scales of its grid where it lies on one. */
export interface Held {
  readonly rows: number;
  readonly cols: number;
  /** Entries [first, end) of row `r`. */
  readonly read: (r: number, first: number, end: number, into?: Float32Array<ArrayBuffer>) => Float32Array;
  readonly scales: Float32Array | undefined;
}

/** Reads a map whole, as it is stored: the most that is in memory is one stack of a layer. */
export async function hold(source: TensorSource, { weight, rows, cols }: LinearSpec): Promise<Held> {
  const from = tensorRows(source, weight, rows, unheard);
  const rowBytes = cols * dtypeBytes[from.dtype];
  const bytes = new Uint8Array(rows * rowBytes);
  await from.read(0, rows, bytes);
  const groups = Math.ceil(cols / 32);
  const scales = from.scales && new Float32Array(rows * groups);
  if (scales !== undefined) await from.scales?.(0, rows, scales);
  const size = dtypeBytes[from.dtype];
  const read: Held["read"] = (r, first, end, into) =>
    toFloat32(from.dtype, bytes.subarray(r * rowBytes + first * size, r * rowBytes + end * size), into);
  return { rows, cols, read, scales };
}

/** The packed bytes of one group of 32 inputs of a stack: scales, then columns. */
export function packGroup(parts: readonly Held[], group: number, weights: WeightFormatId): Uint8Array {
  const rows = packedRowsOf(parts);
  const slab = new Float32Array(rows * 32);
  const grid = parts.every(({ scales }) => scales !== undefined) ? new Float32Array(rows) : undefined;
  let at = 0;
  for (const part of parts) {
    const groups = Math.ceil(part.cols / 32);
    for (let r = 0; r < part.rows; r++) {
      const [first, end] = [group * 32, Math.min(part.cols, group * 32 + 32)];
      part.read(r, first, end, slab.subarray((at + r) * 32, (at + r) * 32 + end - first));
      if (grid !== undefined) grid[at + r] = part.scales![r * groups + group];
    }
    at += padded(part.rows);
  }
  return weightFormats[weights].pack(slab, rows, 32, grid);
}

/** Units [first, first + count) of a map as rows that are read one by one. */
export function packUnits(held: Held, first: number, count: number, weights: WeightFormatId): Uint8Array {
  const { cols, read, scales } = held;
  const groups = Math.ceil(cols / 32);
  const slab = new Float32Array(count * cols);
  for (let u = 0; u < count; u++) read(first + u, 0, cols, slab.subarray(u * cols, (u + 1) * cols));
  return packRows(weights, slab, count, cols, scales?.subarray(first * groups, (first + count) * groups));
}
