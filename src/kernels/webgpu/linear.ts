import { groupSize } from "../../pack/index.js";
import type { BackendCounters, LinearOptions } from "../backend.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import { made } from "./made.js";
import type { GpuMatrix, MatvecKernel, TileRun } from "./matrix.js";
import type { NextNorm, Squares } from "./normFusion.js";
import { type GpuActivation, type GpuVector, own } from "./storage.js";
import { matmulParts } from "./wgsl/matmul.js";
import { addSlices, halve, halvedColumns, type TensorTile } from "./wgsl/matmulTensor.js";
import { matvecParts, maxTickets } from "./wgsl/matvec.js";
import { notCounted } from "./wgsl/matvecInputs.js";
import { rowVector } from "./wgsl/matvecPlaces.js";

/** Norms that are part of a product of one row; see `NormFusion`. */
export interface NormsAround {
  /** Of x, which lacks a factor of its norm. */
  readonly before?: Squares;
  readonly after?: NextNorm;
}

/** See `Backend.linear`; what is counted is stated at `BackendCounters`. */
export function linear(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuMatrix,
  options: LinearOptions,
  counters: BackendCounters,
  norms: NormsAround = {},
): void {
  const { kernel, thresholds } = matvecFor(x, w, options);
  if (kernel !== undefined && thresholds !== undefined) {
    multiplyRow(context, out, x, w, kernel, options, norms, { thresholds, counters });
    return;
  }
  if (kernel !== undefined) multiplyRow(context, out, x, w, kernel, options, norms);
  else multiplyRows(context, out, x, w, options);
  counters.weightBytesRead += w.byteLength;
}

/** The kernel for one row with these options, if there is one, and the thresholds below which it leaves columns unread. */
function matvecFor(
  x: GpuActivation,
  w: GpuMatrix,
  { gate, thresholds: given, sparseFromRow = 0 }: LinearOptions,
): { kernel?: MatvecKernel; thresholds?: readonly number[] } {
  if (x.rows !== 1) return {};
  const thresholds = sparseFromRow <= 0 ? given : undefined;
  const { matvec, sparseMatvec } = w.kernels.matvecs[gate?.f ?? "plain"] ?? {};
  return { kernel: thresholds === undefined ? matvec : sparseMatvec, thresholds };
}

/** Whether a product computes `options.gate` inside of it; if not, that is an operation before it. */
export const fusible = (x: GpuActivation, w: GpuMatrix, options: LinearOptions): boolean =>
  matvecFor(x, w, options).kernel !== undefined;

/** About as many workgroups as a large GPU has cores: more slices cost more in joining than they hide. */
const wantedWorkgroups = 128;
const wantedInSoftware = 8;

/** Fewer columns than this are not worth a workgroup of their own. */
const minimumGroups = 4;

/** Into how many slices of the columns a product is cut. @param products how many are made at once */
export function slicing(
  { device }: Context,
  w: GpuMatrix,
  listed: boolean,
  products = 1,
): { groupsPerSlice: number; slices: number } {
  const tiles = tilesOf(w) * products;
  const wanted = device.isSoftware ? wantedInSoftware : wantedWorkgroups;
  const most = listed ? w.kernels.listedColumns / groupSize : w.groups;
  const wantedSlices = Math.min(Math.round(wanted / tiles), Math.ceil(w.groups / minimumGroups));
  const groupsPerSlice = Math.ceil(w.groups / Math.max(1, wantedSlices, Math.ceil(w.groups / most)));
  return { groupsPerSlice, slices: Math.ceil(w.groups / groupsPerSlice) };
}

interface RowBatch {
  readonly memory: GpuMemory;
  readonly batch: readonly TileRun[];
}

/** What each dispatch of a product of one row takes of a matrix: every token asks for it. */
const rowBatches = new WeakMap<GpuMatrix, readonly RowBatch[]>();

const rowBatchesOf = (w: GpuMatrix): RowBatch[] =>
  w.chunks.flatMap(({ memory, runs }) => batchesOf(runs, matvecParts).map((batch) => ({ memory, batch })));

/** @param sparse thresholds, and where to count what they drop; none for the dense kernel */
function multiplyRow(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuMatrix,
  kernel: MatvecKernel,
  { bias, accumulate = false, gate }: LinearOptions,
  { before, after }: NormsAround,
  sparse?: { thresholds: readonly number[]; counters: BackendCounters },
): void {
  const { recorder } = context;
  const { groupsPerSlice, slices } = slicing(context, w, sparse !== undefined || gate !== undefined);
  const exchange = context.scratch("exchange", (maxTickets + slices * w.rows) * 4);

  const up = gate && own(gate.up);
  const batches = made(rowBatches, w, () => rowBatchesOf(w));
  recorder.makeRoom(batches.length, w.parts.length);
  let firstSquare = 0;
  for (const { memory, batch } of batches) {
    const workgroups = fillTable(
      w,
      batch,
      (run) => run.tiles,
      ({ part, firstTile }) => [
        sparse?.thresholds[part] ?? 0,
        sparse !== undefined && firstTile === 0 ? countPart(context, w, part, sparse.counters) : notCounted,
      ],
    );
    recorder.run(
      kernel,
      {
        xOffset: x.offset,
        cols: w.cols,
        groups: w.groups,
        groupsPerSlice,
        slices,
        parts: batch.length,
        outOffset: out.offset,
        exchangeStride: w.rows,
        vectorUse: after !== undefined ? rowVector.nextNorm : bias !== undefined ? rowVector.bias : rowVector.none,
        accumulate: accumulate ? 1 : 0,
        upOffset: up?.offset ?? 0,
        gateThreshold: gate?.gateThreshold ?? 0,
        squareCount: before?.count ?? 0,
        epsilon: before?.epsilon ?? 0,
        scaledOffset: after?.out.offset ?? 0,
        firstSquare,
      },
      // What is left out is bound to a buffer that is there anyway: devices bind eight.
      {
        outs: out.memory,
        xs: x.memory,
        ups: up?.memory ?? x.memory,
        units: memory,
        vector: (after?.weight ?? (bias as GpuVector | undefined))?.memory ?? x.memory,
        squares: before?.memory ?? x.memory,
        scaled: after?.out.memory ?? out.memory,
        squaresOut: after?.squares ?? out.memory,
        counters: recorder.counters,
        exchange,
      },
      [workgroups, slices],
      table,
    );
    firstSquare += workgroups;
  }
}

function multiplyRows(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuMatrix,
  options: LinearOptions,
): void {
  const { recorder, nothing } = context;
  const { thresholds, sparseFromRow = 0, bias, accumulate = false } = options;
  // Kernels for matrix units read x in fours and from a buffer of its own.
  const readable = out.memory !== x.memory && x.offset % 4 === 0 && x.stride % 4 === 0 && w.cols % 4 === 0;
  const dense = thresholds === undefined || sparseFromRow >= x.rows;
  const matmuls = w.kernels.matmuls.filter((m) => m.tile === undefined || (readable && (dense || !m.tile.halves)));
  const { tokens, blockRows, kernel, tile } = matmuls.findLast((m) => m.tokens === wantedTokens(matmuls, x.rows))!;
  const blocks = ({ part, firstTile, tiles }: TileRun) => {
    const first = firstTile * w.gpuFormat.tileRows;
    const rows = Math.min(tiles * w.gpuFormat.tileRows, w.parts[part].rows - first);
    return Math.ceil(rows / blockRows);
  };
  // What is held runs now, or it would overwrite the table.
  recorder.makeRoom(w.chunks.length + 2, 0);
  const read = tile?.halves ? halved(context, x, tokens) : x;
  const { slices, stepsOfSlice } = slicesOfRows(w, x.rows, blockRows, tile);
  const written =
    slices === 1 ? out : { memory: context.scratch("slices", slices * x.rows * w.rows * 4), offset: 0, stride: w.rows };
  const hasBias = slices === 1 && bias !== undefined;
  const places = [written.offset, written.stride, ...w.parts.map(({ rowStart }) => rowStart)];
  const aligned = !hasBias && places.every((place) => place % 4 === 0);
  for (const { memory, runs } of w.chunks) {
    for (const batch of batchesOf(runs, matmulParts)) {
      const workgroups = fillTable(w, batch, blocks, ({ part }) => [
        thresholds?.[part] ?? 0,
        thresholds === undefined ? 0 : 1,
      ]);
      recorder.run(
        kernel,
        {
          xOffset: read.offset,
          xStride: read.stride,
          xRows: x.rows,
          cols: w.cols,
          groups: w.groups,
          parts: batch.length,
          outOffset: written.offset,
          outStride: written.stride,
          hasBias: hasBias ? 1 : 0,
          accumulate: slices === 1 && accumulate ? 1 : 0,
          sparseFromRow: Math.max(0, sparseFromRow),
          stepsOfSlice,
          sliceStride: x.rows * w.rows,
          aligned: aligned ? 1 : 0,
        },
        {
          outs: written.memory,
          xs: read.memory,
          units: memory,
          bias: (bias as GpuVector | undefined)?.memory ?? nothing,
        },
        [workgroups, Math.ceil(x.rows / tokens), slices],
        table.subarray(0, 8 * matmulParts),
      );
    }
  }
  if (slices === 1) return;
  recorder.run(
    addSlices,
    {
      cols: w.rows,
      slices,
      sliceStride: x.rows * w.rows,
      outOffset: out.offset,
      outStride: out.stride,
      hasBias: bias === undefined ? 0 : 1,
      accumulate: accumulate ? 1 : 0,
    },
    { outs: out.memory, sums: written.memory, bias: (bias as GpuVector | undefined)?.memory ?? nothing },
    [Math.ceil(w.rows / 64), x.rows],
  );
}

/** Fewer steps than this are not worth a workgroup of their own. */
const minimumSteps = 16;

/** Into how many slices of the columns a product of several rows is cut, of how many steps each. */
function slicesOfRows(
  w: GpuMatrix,
  rows: number,
  blockRows: number,
  tile: TensorTile | undefined,
): { slices: number; stepsOfSlice: number } {
  if (tile === undefined) return { slices: 1, stepsOfSlice: 0 };
  const steps = Math.ceil(w.groups / tile.groupsAtOnce);
  const workgroups = Math.ceil(w.rows / blockRows) * Math.ceil(rows / tile.tokens);
  const wanted = Math.min(Math.round(tile.workgroups / workgroups), Math.floor(steps / minimumSteps));
  const stepsOfSlice = Math.ceil(steps / Math.max(1, wanted));
  return { slices: Math.ceil(steps / stepsOfSlice), stepsOfSlice };
}

/** x as f16, in rows that are whole for any kernel, and so many that workgroups of `tokens` rows find theirs. */
function halved(context: Context, x: GpuActivation, tokens: number): { memory: GpuMemory; offset: 0; stride: number } {
  const stride = halvedColumns(x.cols);
  const memory = context.scratch("halves", Math.ceil(x.rows / tokens) * tokens * stride * 2);
  context.recorder.run(
    halve,
    { xOffset: x.offset, xStride: x.stride, cols: x.cols, eights: stride / 8 },
    { outs: memory, xs: x.memory },
    [Math.ceil(stride / 8 / 64), x.rows],
  );
  return { memory, offset: 0, stride };
}

/** The least that takes all rows of x at once, or else the most. */
function wantedTokens(matmuls: readonly { tokens: number }[], rows: number): number {
  const sizes = matmuls.map(({ tokens }) => tokens);
  return Math.min(...sizes.filter((tokens) => tokens >= rows), Math.max(...sizes));
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

function batchesOf<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

export const table = new Uint32Array(8 * matvecParts);
const tableF32 = new Float32Array(table.buffer);

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
    table.set([workgroups, run.unitBase, part.rows, part.rowStart, run.firstTile, 0, word, 0], 8 * i);
    tableF32[8 * i + 5] = threshold;
    workgroups += workgroupsOf(run);
  }
  return workgroups;
}
