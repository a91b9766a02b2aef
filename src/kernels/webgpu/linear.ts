import type { BackendCounters, LinearOptions } from "../backend.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuMatrix, MatvecKernel, TileRun } from "./matrix.js";
import { batchesOf, fillTable, table } from "./productParts.js";
import { multiplyRow, type NormsAround } from "./rowProduct.js";
import type { GpuActivation, GpuVector } from "./storage.js";
import { matmulParts } from "./wgsl/matmul.js";
import { addSlices, halve, halvedColumns, type TensorTile } from "./wgsl/matmulTensor.js";

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
  const thresholds = thresholdsOf(x, options);
  const kernel = matvecFor(x, w, options);
  if (kernel === undefined) multiplyRows(context, out, x, w, options);
  else multiplyRow(context, out, x, w, kernel, options, norms, thresholds && { thresholds, counters });
  if (kernel === undefined || thresholds === undefined) counters.weightBytesRead += w.byteLength;
}

/** Those below which a product of one row leaves columns unread. */
const thresholdsOf = (x: GpuActivation, { thresholds, sparseFromRow = 0 }: LinearOptions) =>
  x.rows === 1 && sparseFromRow <= 0 ? thresholds : undefined;

/** The kernel for one row with these options, if there is one. */
function matvecFor(x: GpuActivation, w: GpuMatrix, options: LinearOptions): MatvecKernel | undefined {
  if (x.rows !== 1) return undefined;
  const kernels = w.kernels.matvecs[options.gate?.f ?? "plain"];
  return thresholdsOf(x, options) === undefined ? kernels?.matvec : kernels?.sparseMatvec;
}

/** Whether a product computes `options.gate` inside of it; if not, that is an operation before it. */
export const fusible = (x: GpuActivation, w: GpuMatrix, options: LinearOptions): boolean =>
  matvecFor(x, w, options) !== undefined;

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
