import { groupSize } from "../../pack/index.js";
import type { BackendCounters } from "../backend.js";
import type { Context } from "./context.js";
import type { GpuMatrix, TileRun } from "./matrix.js";
import { matvecParts } from "./wgsl/matvec.js";

// How a product is cut into workgroups and dispatches, and the table that tells each of them its parts of the matrix.

/** About as many workgroups as a large GPU has cores: more slices cost more in joining than they hide. */
const wantedWorkgroups = 128;
const wantedInSoftware = 8;

/** Fewer columns than this are not worth a workgroup of their own. */
const minimumGroups = 4;

/**
 * Into how many slices of the columns a product is cut.
 * @param listed by what kernel, if it lists its inputs
 * @param products how many are made at once
 */
export function slicing(
  { device }: Context,
  w: GpuMatrix,
  listed: "dense" | "sparse" | undefined,
  products = 1,
): { groupsPerSlice: number; slices: number } {
  const tiles = tilesOf(w) * products;
  const wanted = device.isSoftware ? wantedInSoftware : wantedWorkgroups;
  const most = listed === undefined ? w.groups : w.kernels.listedColumns[listed] / groupSize;
  const wantedSlices = Math.min(Math.round(wanted / tiles), Math.ceil(w.groups / minimumGroups));
  const groupsPerSlice = Math.ceil(w.groups / Math.max(1, wantedSlices, Math.ceil(w.groups / most)));
  return { groupsPerSlice, slices: Math.ceil(w.groups / groupsPerSlice) };
}

/**
 * A counter pair for one part of a sparse product: kept inputs, and groups of 32 with a kept input.
 * @param products how many are made at once
 */
export function countPart(
  context: Context,
  w: GpuMatrix,
  part: number,
  counters: BackendCounters,
  products = 1,
): number {
  const { format } = w.gpuFormat;
  const { rows } = w.parts[part];
  return context.recorder.countPair((kept, groups) => {
    counters.weightBytesRead += kept * format.columnBytes(rows) + groups * format.groupScaleBytes(rows);
    counters.inputs += products * w.cols;
    counters.inputsSkipped += products * w.cols - kept;
  });
}

/** Row tiles of a matrix: as many workgroups take part in a product of one row, times slices. */
export const tilesOf = (w: GpuMatrix): number => w.chunks.reduce((sum, { runs }) => sum + tileCount(runs), 0);

export const tileCount = (runs: readonly TileRun[]): number => runs.reduce((sum, run) => sum + run.tiles, 0);

/** Items in order, as many together as one dispatch takes. */
export function batchesOf<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** Of the dispatch that is about to be recorded. */
export const table = new Uint32Array(8 * matvecParts);

/**
 * Writes the part table of a dispatch; see `matvec` and `matmul`.
 * @param last the threshold and the last word of each part
 * @returns number of workgroups
 */
export function fillTable(
  w: GpuMatrix,
  runs: readonly TileRun[],
  workgroupsOf: (run: TileRun) => number,
  last: (run: TileRun) => readonly [threshold: number, word: number],
): number {
  let workgroups = 0;
  for (const [i, run] of runs.entries()) {
    const part = w.parts[run.part];
    const [threshold, word] = last(run);
    table.set([workgroups, run.unitBase, part.rows, part.rowStart, run.firstTile, 0, 0, 0], 8 * i);
    setLast(table, i, threshold, word);
    workgroups += workgroupsOf(run);
  }
  return workgroups;
}

const number = new Float32Array(1);
const bitsOfNumber = new Uint32Array(number.buffer);

/** Sets the threshold and the last word of one part in a part table. @returns whether that changes it */
export function setLast(words: Uint32Array, part: number, threshold: number, last: number): boolean {
  number[0] = threshold;
  const at = 8 * part + 5;
  if (words[at] === bitsOfNumber[0] && words[at + 1] === last) return false;
  words[at] = bitsOfNumber[0];
  words[at + 1] = last;
  return true;
}
