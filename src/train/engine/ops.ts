import { lax, nn, numpy as np } from "@jax-js/jax";

/**
 * Operations of the engine that leave their arguments usable. The engine counts references and takes one at every use; inside
 * a function that is only ever traced (under `jit`) a reference costs nothing, so each use here takes one of its own.
 * Not for arrays that hold data: those would never be freed.
 */
export type Traced = np.Array;
type Operand = Traced | number;

const use = (x: Operand): Operand => (typeof x === "number" ? x : x.ref);

export const add = (a: Operand, b: Operand): Traced => np.add(use(a), use(b));
export const subtract = (a: Operand, b: Operand): Traced => np.subtract(use(a), use(b));
export const multiply = (a: Operand, b: Operand): Traced => np.multiply(use(a), use(b));
export const divide = (a: Operand, b: Operand): Traced => np.trueDivide(use(a), use(b));
export const negate = (x: Traced): Traced => np.negative(x.ref);
export const square = (x: Traced): Traced => np.multiply(x.ref, x.ref);
export const absolute = (x: Traced): Traced => np.absolute(x.ref);
export const exp = (x: Traced): Traced => np.exp(x.ref);
export const log1p = (x: Traced): Traced => np.log1p(x.ref);
export const sqrt = (x: Traced): Traced => np.sqrt(x.ref);
export const tanh = (x: Traced): Traced => np.tanh(x.ref);
export const erf = (x: Traced): Traced => lax.erf(x.ref);
export const floor = (x: Traced): Traced => np.floor(x.ref);
/** As int32. */
export const integers = (x: Traced): Traced => x.ref.astype(np.int32);
export const maximum = (a: Operand, b: Operand): Traced => np.maximum(use(a), use(b));
export const greater = (a: Operand, b: Operand): Traced => np.greater(use(a), use(b));
export const greaterEqual = (a: Operand, b: Operand): Traced => np.greaterEqual(use(a), use(b));
export const equal = (a: Operand, b: Operand): Traced => np.equal(use(a), use(b));
export const where = (condition: Traced, a: Operand, b: Operand): Traced => np.where(condition.ref, use(a), use(b));
export const stopGradient = (x: Traced): Traced => lax.stopGradient(x.ref);

export const reshape = (x: Traced, shape: number[]): Traced => np.reshape(x.ref, shape);
export const transpose = (x: Traced, order?: number[]): Traced => np.transpose(x.ref, order);
export const concatenate = (parts: readonly Traced[], axis: number): Traced =>
  np.concatenate(
    parts.map((part) => part.ref),
    axis,
  );
export const split = (x: Traced, parts: number, axis: number): Traced[] => np.split(x.ref, parts, axis);
/** Rows of `table` [n, width] by number: [...indices.shape, width]. */
export const take = (table: Traced, indices: Traced): Traced => np.take(table.ref, indices.ref, 0);
export const sort = (x: Traced, axis: number): Traced => np.sort(x.ref, axis);
/** int32: what would sort the last axis, the first of equals first; no gradient. */
export const argsort = (x: Traced): Traced => np.argsort(lax.stopGradient(settled(x)), -1);

/**
 * x as numbers that lie in memory. Sorts, scatters and the gradients of gathers are kernels of the engine's own, which it cannot
 * compile over a view of something it has fused; the product with a 1 that it does not see through keeps the two apart.
 */
export const settled = (x: Traced): Traced => np.multiply(x.ref, np.array([1], { dtype: x.dtype }));

/** Rows of `table` [n, width] by number, indices int32 [m]; the gradient may flow to whatever made the table. */
export const takeRows = (table: Traced, indices: Traced): Traced =>
  settled(np.take(settled(table), settled(indices), 0));

/** Column `index` of the last axis, which stays as 1. */
export const column = (x: Traced, index: number): Traced => np.take(x.ref, np.array([index], { dtype: np.int32 }), -1);

/** Columns first … end − 1 of the last axis. */
export function columns(x: Traced, first: number, end: number): Traced {
  const all = x.shape.slice(1).map((): [] => []);
  return x.ref.slice(...all, [first, end]);
}

/** Rows first … end − 1 of the first axis. */
export const rows = (x: Traced, first: number, end: number): Traced =>
  first === 0 && end === x.shape[0] ? x : x.ref.slice([first, end]);

export const sum = (x: Traced, axis?: number | number[]): Traced => np.sum(x.ref, axis);
export const mean = (x: Traced, axis?: number | number[]): Traced => np.mean(x.ref, axis);
/** The largest of the last axis, which stays as 1. */
export const maxOfRows = (x: Traced): Traced => np.max(x.ref, -1, { keepdims: true });
/** The mean over the last axis, which stays as 1. */
export const meanOfRows = (x: Traced): Traced => np.mean(x.ref, -1, { keepdims: true });
export const sumOfRows = (x: Traced): Traced => np.sum(x.ref, -1, { keepdims: true });

export const matmul = (a: Traced, b: Traced): Traced => np.matmul(a.ref, b.ref);
export const softmax = (x: Traced): Traced => nn.softmax(x.ref, -1);
export const logSoftmax = (x: Traced): Traced => nn.logSoftmax(x.ref, -1);
export const logSumExp = (x: Traced): Traced => nn.logsumexp(x.ref, -1);

/** 0 … length − 1 as int32. */
export const range = (length: number): Traced => np.arange(length);
