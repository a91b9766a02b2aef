import { groupSize, isSparse, padded, roundsInputs } from "../../pack/index.js";
import type { LinearOptions } from "../backend.js";
import type { Operands } from "./encode.js";
import { formatCode } from "./formatCode.js";
import * as layout from "./layout.js";
import { matmulScratchBytes } from "./matmulScratch.js";
import type { ProgramActivation, ProgramMatrix, ProgramVector } from "./storage.js";

/** Keeps every input, zeros included. */
const keepAll = -1;

/** Rows of X that one matrix-matrix operation takes: its sums for 64 outputs then stay in the second-level cache. */
const maxTokens = 128;

interface Thresholds {
  /** One per part, as f32. */
  values: readonly number[];
  /** First row of x they apply to. */
  fromRow: number;
}

/**
 * Records out = x·Wᵀ: a matrix-vector product for one row, else matrix-matrix products of at most 128 rows.
 * @returns whether the kernels count the bytes and inputs (a sparse matrix-vector product)
 */
export function linear(
  out: ProgramActivation,
  x: ProgramActivation,
  w: ProgramMatrix,
  options: LinearOptions,
  threads: number,
  dot: number,
): boolean {
  const { thresholds, sparseFromRow = 0 } = options;
  const sparse: Thresholds = {
    values: thresholds?.map(Math.fround) ?? w.parts.map(() => keepAll),
    fromRow: thresholds === undefined ? x.rows : sparseFromRow,
  };
  if (x.rows === 1) return matvec(out, x, w, options, sparse, threads, dot);
  for (let row = 0; row < x.rows; row += maxTokens) {
    const count = Math.min(maxTokens, x.rows - row);
    const block = { values: sparse.values, fromRow: Math.min(Math.max(sparse.fromRow - row, 0), count) };
    matmul(out.rowRange(row, count), x.rowRange(row, count), w, options, block, threads, dot);
  }
  return false;
}

/**
 * Slices of the inputs in a matrix-vector product, each of whole groups. Their sums are added up afterwards, so fewer cost less, and
 * their number decides how sums are rounded, so it does not depend on the threads. Formats that leave zeros out have no
 * other way of sharing work than slices: enough for 16 threads.
 */
const slicesOf = ({ cols, format }: ProgramMatrix) => Math.min(isSparse(format) ? 16 : 4, padded(cols) / groupSize);

/** Rows that make reading a column worth its while. */
const rowsOfRun = 512;

/**
 * The fewest runs of rows that let the threads share all runs of all slices evenly: cut further, a column is read in shorter pieces
 * (measured with 8 threads: 16 pieces of work take 1.1 to 1.3 times what 8 take).
 */
export function rowRunsOf(
  { format, packedRows }: Pick<ProgramMatrix, "format" | "packedRows">,
  slices: number,
  threads: number,
): number {
  if (isSparse(format)) return 1;
  let runs = 1;
  while ((runs * slices) % threads !== 0) runs++;
  return Math.max(1, Math.min(runs, Math.floor(packedRows / rowsOfRun)));
}

function matvec(
  out: ProgramActivation,
  x: ProgramActivation,
  w: ProgramMatrix,
  options: LinearOptions,
  sparse: Thresholds,
  threads: number,
  dot: number,
): boolean {
  const { arena } = w;
  const counts = sparse.fromRow <= 0;
  const segments = segmentsOf(w, counts ? sparse.values : w.parts.map(() => keepAll), counts);
  const slices = slicesOf(w);
  const sumBytes = slices * w.packedRows * 4;
  const threadBytes = isSparse(w.format) ? layout.sparseScratchBytes : layout.matvecScratchBytes;
  const sums = arena.scratch(sumBytes + threads * threadBytes);
  arena.record("matvec", {
    x: x.readIn(arena),
    cols: w.cols,
    weights: w.offset,
    paddedRows: w.packedRows,
    format: formatCode(w.format),
    dot,
    sums,
    scratch: sums + sumBytes,
    scratchBytes: threadBytes,
    out: outAt(out, w, options),
    bias: biasAt(w, options),
    accumulate: options.accumulate ?? false,
    slices,
    rowRuns: rowRunsOf(w, slices, threads),
    segments,
    parts: w.parts.map(({ packedStart, rowStart, rows }) => ({ packedRow: packedStart, firstOutput: rowStart, rows })),
  });
  return counts;
}

type Mutable<T> = { -readonly [N in keyof T]: T[N] };

/** Runs of packed rows with one threshold: neighbouring parts together, unless each part is a matrix of its own. */
function segmentsOf(w: ProgramMatrix, thresholds: readonly number[], counts: boolean) {
  const segments: Mutable<Operands<"matvec">["segments"][number]>[] = [];
  for (const [i, part] of w.parts.entries()) {
    const { packedStart: firstRow, offset: weights = 0 } = part;
    const endRow = firstRow + padded(part.rows);
    const before = segments.at(-1);
    if (weights === 0 && before !== undefined && before.threshold === thresholds[i]) {
      before.endRow = endRow;
      before.parts++;
    } else segments.push({ threshold: thresholds[i], firstRow, endRow, counts, parts: 1, weights });
  }
  return segments;
}

function matmul(
  out: ProgramActivation,
  x: ProgramActivation,
  w: ProgramMatrix,
  options: LinearOptions,
  sparse: Thresholds,
  threads: number,
  dot: number,
): void {
  const { arena } = w;
  const tokens = padded4(x.rows);
  const values = sparse.fromRow < x.rows ? sparse.values : w.parts.map(() => keepAll);
  // Parts with the same threshold share one prepared x.
  const distinct = [...new Set(values)];
  const quantised = roundsInputs(w.format);
  const runBytes = quantised ? (dot === layout.dotByte ? 32 : 64) : 128;
  const inputBytes = distinct.length * tokens * (padded(w.cols) / groupSize) * (runBytes + 8);
  const threadBytes = matmulScratchBytes(tokens, isSparse(w.format));
  const inputs = arena.scratch(inputBytes + threads * threadBytes);
  arena.record("matmul", {
    x: x.readIn(arena),
    xStride: x.stride,
    tokens: x.rows,
    cols: w.cols,
    weights: w.offset,
    paddedRows: w.packedRows,
    format: formatCode(w.format),
    dot,
    inputs,
    scratch: inputs + inputBytes,
    scratchBytes: threadBytes,
    out: outAt(out, w, options),
    outStride: out.stride,
    bias: biasAt(w, options),
    accumulate: options.accumulate ?? false,
    parts: w.parts.map(({ packedStart, rowStart, rows, offset }, i) => ({
      threshold: values[i],
      sparseFromRow: sparse.fromRow,
      packedRow: packedStart,
      firstOutput: rowStart,
      rows,
      input: distinct.indexOf(values[i]),
      prepares: values.indexOf(values[i]) === i,
      weights: offset ?? 0,
    })),
  });
}

const padded4 = (n: number) => Math.ceil(n / 4) * 4;

/** Byte offset of `out`; what it holds is needed only when it is added to. */
const outAt = (out: ProgramActivation, w: ProgramMatrix, { accumulate }: LinearOptions) =>
  accumulate ? out.readIn(w.arena) : out.writeIn(w.arena);

const biasAt = (w: ProgramMatrix, { bias }: LinearOptions) =>
  bias === undefined ? 0 : (bias as ProgramVector).constant.readIn(w.arena);
