import type { LinearSpec, RowPick, TensorRef } from "../arch/index.js";
import { dtypeBytes, toFloat32 } from "../tensor/index.js";
import type { Checkpoint } from "./checkpoint.js";

/** Whether a reference is all of its tensor, in the order that it is stored in. */
export const isWhole = ({ rows, transposed, stacked }: TensorRef): boolean =>
  rows === undefined && transposed === undefined && stacked === undefined;

/**
 * The tensor of a map alone: the one that it is described with or, of maps that share one or lie in it with columns first, what
 * takes their place when one of them is stored as factors. Such a tensor holds W as it is multiplied.
 */
export const homeTensor = ({ id, weight }: Pick<LinearSpec, "id" | "weight">): string =>
  isWhole(weight) ? weight.tensor : `${weight.tensor.replace(/\.weight$/, "")}.${id}.weight`;

/** Where the numbers of a reference lie in one piece of its tensor, and how that piece is laid out. */
function layoutOf({ shape, rows, transposed, stacked }: TensorRef) {
  const piece = stacked === undefined ? shape : shape.slice(1);
  const [first, second = 1] = piece;
  // Rows and columns of W; of a vector, its entries and 1.
  const [allRows, cols] = transposed ? [second, first] : [first, second];
  const picked = rows ?? { first: 0, run: allRows, stride: allRows, runs: 1 };
  const at = (row: number, col: number) => (transposed ? col * allRows + row : row * cols + col);
  return { entries: first * second, offset: (stacked ?? 0) * first * second, cols, picked, at };
}

/** [rows, cols] of the W that a reference stands for, or [length] of a vector. */
export function shapeOfReference(ref: TensorRef): readonly number[] {
  const { picked, cols } = layoutOf(ref);
  const rows = picked.run * picked.runs;
  return ref.shape.length - (ref.stacked === undefined ? 0 : 1) === 1 ? [rows] : [rows, cols];
}

/** Rows of W that a pick names, in order. */
function* rowsOf({ first, run, stride, runs }: RowPick): Generator<number> {
  for (let r = 0; r < runs; r++) for (let i = 0; i < run; i++) yield first + r * stride + i;
}

/** Which rows of the W that a tensor is as a whole a reference stands for, and the shape of that W. */
export function rowsOfReference(ref: TensorRef): { rows: number[]; whole: { rows: number; cols: number } } {
  const { entries, cols, picked } = layoutOf(ref);
  return { rows: [...rowsOf(picked)], whole: { rows: entries / cols, cols } };
}

/**
 * The numbers of a reference: f32 W [rows, cols], or [length] of a vector.
 * @param shared tensors that several references pick from; what is read of them is added
 * @throws FormatError
 */
export async function readReference(
  checkpoint: Checkpoint,
  ref: TensorRef,
  shared = new Map<string, Float32Array>(),
): Promise<Float32Array> {
  if (isWhole(ref)) return checkpoint.readFloat32(ref.tensor);
  const { entries, offset } = layoutOf(ref);
  const key = JSON.stringify([ref.tensor, offset]);
  const values =
    shared.get(key) ??
    (ref.stacked === undefined
      ? await checkpoint.readFloat32(ref.tensor)
      : await readPiece(checkpoint, ref.tensor, offset, entries));
  shared.set(key, values);
  return pick(values, ref, 0);
}

/** The numbers of a reference in its tensor, which was read. @param tensor f32, the whole tensor */
export const pickReference = (tensor: Float32Array, ref: TensorRef): Float32Array =>
  isWhole(ref) ? tensor : pick(tensor, ref, layoutOf(ref).offset);

/** @param offset of the reference's piece in `values` */
function pick(values: Float32Array, ref: TensorRef, offset: number): Float32Array {
  const { cols, picked, at } = layoutOf(ref);
  const out = new Float32Array(picked.run * picked.runs * cols);
  let row = 0;
  for (const from of rowsOf(picked)) {
    for (let c = 0; c < cols; c++) out[row * cols + c] = values[offset + at(from, c)];
    row++;
  }
  return out;
}

async function readPiece(checkpoint: Checkpoint, name: string, offset: number, entries: number): Promise<Float32Array> {
  const { dtype } = checkpoint.tensors.get(name)!;
  const bytes = dtypeBytes[dtype];
  return toFloat32(dtype, await checkpoint.read(name, offset * bytes, entries * bytes));
}

/** Puts numbers back where `readReference` found them. @param tensor f32, the whole tensor */
export function writeReference(tensor: Float32Array, ref: TensorRef, values: Float32Array): void {
  const { offset, cols, picked, at } = layoutOf(ref);
  let row = 0;
  for (const to of rowsOf(picked)) {
    for (let c = 0; c < cols; c++) tensor[offset + at(to, c)] = values[row * cols + c];
    row++;
  }
}
