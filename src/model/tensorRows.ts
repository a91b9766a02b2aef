import type { RowPick, TensorRef } from "../arch/index.js";
import type { Checkpoint, LogicalTensor } from "../io/index.js";
import type { RowSource } from "../kernels/index.js";
import { groupSize } from "../pack/index.js";
import { byteLengthOf, dtypeBytes, type TensorInfo, toFloat32 } from "../tensor/index.js";
import { hasGroupScales } from "./keptCodes.js";

/** Where tensors are read from: a checkpoint, or what stands for one in memory. */
export type TensorSource = Pick<Checkpoint, "tensors" | "read" | "readScales">;

/** Who is told of what is read. */
export interface ReadEvents {
  /** Bytes of a tensor were read for the first time. */
  onRead(tensor: TensorInfo, byteLength: number): void;
  /**
   * Some of these numbers may be NaN or infinite.
   * @param bytes of the tensor from element `first` on, row-major
   */
  onSuspect(tensor: TensorInfo, bytes: Uint8Array, first: number): void;
}

/** For tensors that were looked at when they were made. */
export const unheard: ReadEvents = { onRead() {}, onSuspect() {} };

/** The runs of consecutive stored rows that rows [start, start + count) of a pick lie in. */
function* runsOf(
  pick: RowPick,
  start: number,
  count: number,
): Generator<{ stored: number; at: number; count: number }> {
  for (let row = start; row < start + count; ) {
    const within = row % pick.run;
    // Runs that touch one another are one.
    const left = pick.stride === pick.run || pick.runs === 1 ? start + count - row : pick.run - within;
    const length = Math.min(left, start + count - row);
    yield { stored: pick.first + Math.floor(row / pick.run) * pick.stride + within, at: row - start, count: length };
    row += length;
  }
}

/**
 * A matrix read by ranges of rows, with the scales of its grid where packed formats can take them over. Of a tensor that is
 * stored [cols, rows] all of it is read at once: that bounds memory by the largest such matrix.
 * @param rows at least what is stored; rows beyond it are zeros
 */
export function tensorRows(input: TensorSource, ref: TensorRef, rows: number, events: ReadEvents): RowSource {
  const tensor = input.tensors.get(ref.tensor)!;
  if (ref.flipped) return flippedRows(tensorRows(input, { ...ref, flipped: undefined }, ref.rows!.run, events));
  return ref.transposed || ref.stacked !== undefined
    ? wholeRows(input, tensor, ref, rows, events)
    : rangeRows(input, tensor, ref.rows, rows, events);
}

/**
 * Rows of a matrix that is read as a whole: when the first of them is wanted, and let go behind the last.
 * @param copy writes rows [start, start + count) of what was read
 */
function heldRows(
  described: Omit<RowSource, "read" | "scales">,
  readAll: () => Promise<Uint8Array>,
  copy: (all: Uint8Array, start: number, count: number, into: Uint8Array) => void,
): RowSource {
  let bytes: Promise<Uint8Array> | undefined;
  return {
    ...described,
    async read(start, count, into) {
      bytes ??= readAll();
      copy(await bytes, start, count, into);
      if (start + count >= described.rows) bytes = undefined;
    },
  };
}

/** The columns of a matrix as rows. */
function flippedRows(source: RowSource): RowSource {
  const { name, dtype, rows: cols, cols: rows } = source;
  const onNonFinite = async () => source.onNonFinite?.(0, cols);
  const size = dtypeBytes[dtype];
  const readAll = async () => {
    const all = new Uint8Array(rows * cols * size);
    await source.read(0, cols, all);
    return all;
  };
  return heldRows({ name, rows, cols, dtype, onNonFinite }, readAll, (all, start, count, into) => {
    for (let r = 0; r < count; r++) {
      for (let c = 0; c < cols; c++) {
        const from = (c * rows + start + r) * size;
        for (let b = 0; b < size; b++) into[(r * cols + c) * size + b] = all[from + b];
      }
    }
  });
}

function rangeRows(
  input: TensorSource,
  tensor: LogicalTensor,
  pick: RowPick | undefined,
  rows: number,
  { onRead, onSuspect }: ReadEvents,
): RowSource {
  const { name, dtype, shape, grid } = tensor;
  const [storedRows, cols] = shape;
  const picked = pick === undefined ? storedRows : pick.run * pick.runs;
  const whole = pick ?? { first: 0, run: storedRows, stride: storedRows, runs: 1 };
  const rowBytes = cols * dtypeBytes[dtype];
  const present = (start: number, count: number) => Math.max(0, Math.min(count, picked - start));
  // Rows before this one were read already.
  let unread = 0;
  const source: RowSource = {
    name,
    rows,
    cols,
    dtype,
    async read(start, count, into) {
      const known = Math.max(start, unread);
      for (const run of runsOf(whole, start, present(start, count))) {
        const bytes = into.subarray(run.at * rowBytes, (run.at + run.count) * rowBytes);
        await input.read(name, run.stored * rowBytes, bytes.byteLength, bytes);
        const skipped = Math.max(0, Math.min(run.count, known - start - run.at));
        if (skipped < run.count) onRead(tensor, (run.count - skipped) * rowBytes);
      }
      into.fill(0, present(start, count) * rowBytes);
      unread = Math.max(unread, start + count);
    },
    async onNonFinite(start, count) {
      for (const run of runsOf(whole, start, present(start, count))) {
        onSuspect(tensor, await input.read(name, run.stored * rowBytes, run.count * rowBytes), run.stored * cols);
      }
    },
  };
  if (grid === undefined || !hasGroupScales(tensor)) return source;
  const groups = Math.ceil(cols / groupSize);
  const gridGroups = Math.ceil(cols / grid.groupSize);
  return {
    ...source,
    async scales(start, count, into) {
      into.fill(0);
      for (const run of runsOf(whole, start, present(start, count))) {
        const scales = await input.readScales(name, run.stored, run.count);
        for (let r = 0; r < run.count; r++) {
          for (let g = 0; g < groups; g++) {
            into[(run.at + r) * groups + g] = scales[r * gridGroups + Math.floor((g * groupSize) / grid.groupSize)];
          }
        }
      }
    },
  };
}

/** Rows of a tensor that lies with its columns first, or of one of a stack of matrices. */
function wholeRows(
  input: TensorSource,
  tensor: LogicalTensor,
  { transposed, stacked, rows: pick }: TensorRef,
  rows: number,
  { onRead, onSuspect }: ReadEvents,
): RowSource {
  const { name, dtype, shape } = tensor;
  const [first, second] = shape.slice(-2);
  const [storedRows, cols] = transposed ? [second, first] : [first, second];
  const size = dtypeBytes[dtype];
  const elements = first * second;
  const whole = pick ?? { first: 0, run: storedRows, stride: storedRows, runs: 1 };
  const at = (stacked ?? 0) * elements;
  const readAll = async () => {
    const all = await input.read(name, at * size, elements * size);
    // Maps that share the tensor each read it; the first one counts.
    if (whole.first === 0) onRead(tensor, all.byteLength);
    return all;
  };
  const onNonFinite = async () => onSuspect(tensor, await input.read(name, at * size, elements * size), at);
  return heldRows({ name, rows, cols, dtype, onNonFinite }, readAll, (all, start, count, into) => {
    const present = Math.max(0, Math.min(count, whole.run * whole.runs - start));
    for (const run of runsOf(whole, start, present)) {
      for (let r = 0; r < run.count; r++) {
        for (let c = 0; c < cols; c++) {
          const from = (transposed ? c * storedRows + run.stored + r : (run.stored + r) * cols + c) * size;
          const to = ((run.at + r) * cols + c) * size;
          for (let b = 0; b < size; b++) into[to + b] = all[from + b];
        }
      }
    }
    into.fill(0, present * cols * size);
  });
}

/** A vector, or some entries of one, as f32. */
export async function readVector(
  input: TensorSource,
  ref: TensorRef,
  { onRead, onSuspect }: ReadEvents,
): Promise<Float32Array> {
  const tensor = input.tensors.get(ref.tensor)!;
  const length = ref.stacked === undefined ? undefined : tensor.shape.slice(1).reduce((all, size) => all * size, 1);
  const size = dtypeBytes[tensor.dtype];
  const at = (ref.stacked ?? 0) * (length ?? 0);
  const bytes = await input.read(ref.tensor, at * size, length === undefined ? undefined : length * size);
  onRead(tensor, bytes.byteLength);
  onSuspect(tensor, bytes, at);
  const values = toFloat32(tensor.dtype, bytes);
  if (ref.rows === undefined) return values;
  const picked = new Float32Array(ref.rows.run * ref.rows.runs);
  for (const run of runsOf(ref.rows, 0, picked.length)) {
    picked.set(values.subarray(run.stored, run.stored + run.count), run.at);
  }
  return picked;
}

/** Bytes that are read of a tensor: of factors, those that are stored. */
export const readBytesOf = (tensor: LogicalTensor): number =>
  tensor.factors === undefined ? byteLengthOf(tensor) : (tensor.storedBytes ?? 0);
