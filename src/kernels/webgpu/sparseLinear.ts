import { groupSize } from "../../pack/index.js";
import type { BackendCounters, LinearOptions } from "../backend.js";
import type { Context } from "./context.js";
import { linear } from "./linear.js";
import type { GpuMatrix } from "./matrix.js";
import type { GpuSparseMatrix, SparsePart } from "./sparseMatrix.js";
import type { GpuActivation, GpuVector } from "./storage.js";
import { expandThreads } from "./wgsl/expand.js";
import { sparseAccess, sparseTileRows } from "./wgsl/sparseAccess.js";
import { joinSlices, joinThreads, sparseMatvecParts } from "./wgsl/sparseMatvec.js";

const wantedInSoftware = 8;

/** `linear` for a matrix that leaves zeros out: one row of x walks its codes, several multiply it with what it stands for. */
export function sparseLinear(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuSparseMatrix,
  options: LinearOptions,
  counters: BackendCounters,
): void {
  const { thresholds, sparseFromRow = 0 } = options;
  if (x.rows === 1 && w.kernels.matvec !== undefined) {
    const counted = thresholds !== undefined && sparseFromRow <= 0 ? { thresholds, counters } : undefined;
    multiplyRow(context, out, x, w, w.kernels.matvec, options, counted);
    if (counted === undefined) counters.weightBytesRead += w.byteLength;
    return;
  }
  // The bytes of the dense copy are not those of the matrix.
  linear(context, out, x, expanded(context, w), options, { ...counters });
  counters.weightBytesRead += w.byteLength;
}

function multiplyRow(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuSparseMatrix,
  { kernel, workgroups, sliceGroups }: NonNullable<GpuSparseMatrix["kernels"]["matvec"]>,
  { bias, accumulate = false }: LinearOptions,
  sparse: { thresholds: readonly number[]; counters: BackendCounters } | undefined,
): void {
  const { recorder, nothing } = context;
  const tiles = w.parts.reduce((sum, part) => sum + part.tiles, 0);
  const wanted = context.device.isSoftware ? wantedInSoftware : workgroups;
  const wantedSlices = Math.max(1, Math.round(wanted / tiles), Math.ceil(w.groups / sliceGroups));
  const groupsPerSlice = Math.ceil(w.groups / Math.min(w.groups, wantedSlices));
  const slices = Math.ceil(w.groups / groupsPerSlice);
  const sums = context.scratch("sums of slices", slices * w.rows * 4);

  const dispatches = w.chunks.flatMap((chunk) =>
    batches(w.parts).flatMap(({ firstPart, parts }) => {
      const last = parts[parts.length - 1];
      const first = Math.max(chunk.firstTile, parts[0].firstTile);
      const end = Math.min(chunk.firstTile + chunk.tiles, last.firstTile + last.tiles);
      return end > first ? [{ memory: chunk.memory, firstTile: first, tiles: end - first, firstPart, parts }] : [];
    }),
  );
  recorder.makeRoom(dispatches.length + 1, 2 * w.parts.length);
  const known = w.parts.map(
    (part, i) => sparse && [sparse.thresholds[i], ...countPart(context, w, part, sparse.counters)],
  );
  for (const { memory, firstTile, tiles: count, firstPart, parts } of dispatches) {
    for (const [i] of parts.entries()) {
      const [threshold, inputs, data] = known[firstPart + i] ?? [0, 0, 0];
      table.set([0, sparse === undefined ? 0 : 1, inputs, data], 4 * i);
      tableF32[4 * i] = threshold;
    }
    recorder.run(
      kernel,
      { xOffset: x.offset, cols: w.cols, groupsPerSlice, firstTile, firstPart, sumsStride: w.rows },
      { sums, xs: x.memory, words: memory, places: w.places, counters: recorder.counters },
      [count, slices],
      table,
    );
  }
  recorder.run(
    joinSlices,
    {
      cols: w.rows,
      slices,
      outOffset: out.offset,
      hasBias: bias === undefined ? 0 : 1,
      accumulate: accumulate ? 1 : 0,
    },
    { outs: out.memory, sums, bias: (bias as GpuVector | undefined)?.memory ?? nothing },
    [Math.ceil(w.rows / joinThreads)],
  );
}

/** Counter pairs of one part: kept inputs and groups of 32 with one; and what the format counts of its weights. */
function countPart(
  context: Context,
  w: GpuSparseMatrix,
  part: SparsePart,
  counters: BackendCounters,
): [number, number] {
  const { scaled, countScale } = sparseAccess[w.format];
  const scaleBytes = scaled ? Math.ceil(part.rows / groupSize) * groupSize * 2 : 0;
  const inputs = context.recorder.countPair((kept, groups) => {
    counters.weightBytesRead += groups * scaleBytes;
    counters.inputs += w.cols;
    counters.inputsSkipped += w.cols - kept;
  });
  const data = context.recorder.countPair((amount) => {
    counters.weightBytesRead += amount * countScale(part.rows);
  });
  return [inputs, data];
}

function batches(parts: readonly SparsePart[]): { firstPart: number; parts: readonly SparsePart[] }[] {
  return Array.from({ length: Math.ceil(parts.length / sparseMatvecParts) }, (_, i) => ({
    firstPart: i * sparseMatvecParts,
    parts: parts.slice(i * sparseMatvecParts, (i + 1) * sparseMatvecParts),
  }));
}

const table = new Uint32Array(4 * sparseMatvecParts);
const tableF32 = new Float32Array(table.buffer);

/** The dense form of a matrix, in memory that the next one to be expanded takes over. */
export function expanded(context: Context, w: GpuSparseMatrix): GpuMatrix {
  const { plan, ...dense } = w.dense;
  const chunks = plan.map(({ bytes, runs }, i) => ({ memory: context.scratch(`expanded ${i}`, bytes), runs }));
  const tileUnits = dense.gpuFormat.format.byteLength(sparseTileRows, w.cols) / 16;
  for (const { memory, runs } of chunks) {
    for (const run of runs) {
      const begin = w.parts[run.part].firstTile + run.firstTile;
      for (const chunk of w.chunks) {
        const firstTile = Math.max(begin, chunk.firstTile);
        const tiles = Math.min(begin + run.tiles, chunk.firstTile + chunk.tiles) - firstTile;
        if (tiles <= 0) continue;
        context.recorder.run(
          w.kernels.expand,
          { cols: w.cols, firstTile },
          { units: memory, words: chunk.memory, places: w.places },
          [Math.ceil(tileUnits / expandThreads), tiles],
        );
      }
    }
  }
  return { ...dense, chunks };
}
