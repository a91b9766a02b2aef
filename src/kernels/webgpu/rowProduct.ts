import type { BackendCounters, LinearOptions } from "../backend.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import { type Call, slotsOf } from "./dispatches.js";
import type { GpuMatrix, MatvecKernel, TileRun } from "./matrix.js";
import type { NextNorm, Squares } from "./normFusion.js";
import { batchesOf, countPart, fillTable, setLast, slicing, table } from "./productParts.js";
import { type GpuActivation, type GpuVector, own } from "./storage.js";
import { matvecParts, maxTickets } from "./wgsl/matvec.js";
import { notCounted } from "./wgsl/matvecInputs.js";
import { rowVector } from "./wgsl/matvecPlaces.js";

/** Norms that are part of a product of one row; see `NormFusion`. */
export interface NormsAround {
  /** Of x, which lacks a factor of its norm. */
  readonly before?: Squares;
  readonly after?: NextNorm;
}

/** Of a product with thresholds: those of each part, and where to count what they drop. */
interface Sparse {
  readonly thresholds: readonly number[];
  readonly counters: BackendCounters;
}

/** One dispatch of a product, with its part table; it may be recorded again. */
interface PartCall {
  readonly call: Call & { readonly table: Uint32Array; version: number };
  readonly runs: readonly TileRun[];
}

interface RowProduct {
  /** All that its calls are made of beside the matrix, its thresholds and counters, and `exchange`. */
  readonly of: readonly unknown[];
  readonly exchange: GpuMemory;
  readonly calls: readonly PartCall[];
}

/**
 * The last product of each matrix: what a token multiplies by it lies as a rule in the buffers of the token before, so that
 * the same calls are recorded again.
 */
const lastProducts = new WeakMap<GpuMatrix, RowProduct>();

/** `Backend.linear` for one row. @param sparse if the kernel takes thresholds */
export function multiplyRow(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuMatrix,
  kernel: MatvecKernel,
  options: LinearOptions,
  norms: NormsAround,
  sparse?: Sparse,
): void {
  const { recorder } = context;
  const { bias, accumulate, gate } = options;
  const { before, after } = norms;
  const up = gate && own(gate.up);
  const of = [
    kernel,
    x.memory,
    x.offset,
    out.memory,
    out.offset,
    bias,
    accumulate,
    up?.memory,
    up?.offset,
    gate?.gateThreshold,
    before?.memory,
    before?.count,
    before?.epsilon,
    after?.out.memory,
    after?.out.offset,
    after?.weight,
    after?.squares,
  ];
  let product = lastProducts.get(w);
  if (product === undefined || !isSame(context, product, of)) {
    product = { of, ...callsOf(context, out, x, w, kernel, options, norms, sparse !== undefined) };
    lastProducts.set(w, product);
  }
  recorder.makeRoom(product.calls.length, w.parts.length);
  for (const partCall of product.calls) {
    if (sparse !== undefined) setThresholds(context, w, partCall, sparse);
    recorder.record(partCall.call);
  }
}

const isSame = (context: Context, { of, exchange }: RowProduct, wanted: readonly unknown[]): boolean =>
  of.every((part, i) => part === wanted[i]) && context.scratch("exchange", exchange.byteLength) === exchange;

function setThresholds(
  context: Context,
  w: GpuMatrix,
  { call, runs }: PartCall,
  { thresholds, counters }: Sparse,
): void {
  for (const [i, { part, firstTile }] of runs.entries()) {
    const counter = firstTile === 0 ? countPart(context, w, part, counters) : notCounted;
    if (setLast(call.table, i, thresholds[part], counter)) call.version++;
  }
}

function callsOf(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  w: GpuMatrix,
  kernel: MatvecKernel,
  { bias, accumulate = false, gate }: LinearOptions,
  { before, after }: NormsAround,
  isSparse: boolean,
): Pick<RowProduct, "exchange" | "calls"> {
  const { recorder } = context;
  const listed = isSparse ? "sparse" : gate && "dense";
  const { groupsPerSlice, slices } = slicing(context, w, listed);
  const exchange = context.scratch("exchange", (maxTickets + slices * w.rows) * 4);
  const up = gate && own(gate.up);
  let firstSquare = 0;
  const callOf = (memory: GpuMemory, runs: readonly TileRun[]): PartCall => {
    const workgroups = fillTable(
      w,
      runs,
      (run) => run.tiles,
      () => [0, notCounted],
    );
    const params = {
      xOffset: x.offset,
      cols: w.cols,
      groups: w.groups,
      groupsPerSlice,
      slices,
      parts: runs.length,
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
    };
    // What is left out is bound to a buffer that is there anyway: devices bind eight.
    const slots = slotsOf(kernel, {
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
    });
    firstSquare += workgroups;
    return { call: { kernel, params, slots, grid: [workgroups, slices], table: table.slice(), version: 0 }, runs };
  };
  const calls = w.chunks.flatMap(({ memory, runs }) =>
    batchesOf(runs, matvecParts).map((batch) => callOf(memory, batch)),
  );
  return { exchange, calls };
}
