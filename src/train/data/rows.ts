import type { Batch, BatchArray } from "../objective.js";
import { permutation, randomFor } from "../seeds.js";

/** The rows of every array of `data` that `indices` names. */
export function takeRows(data: Batch, indices: ArrayLike<number>): Batch {
  return Object.fromEntries(Object.entries(data).map(([name, array]) => [name, takeRowsOf(array, indices)]));
}

function takeRowsOf({ shape, values }: BatchArray, indices: ArrayLike<number>): BatchArray {
  const [, ...rest] = shape;
  const width = rest.reduce((a, b) => a * b, 1);
  const taken = new (values.constructor as new (length: number) => typeof values)(indices.length * width);
  for (let i = 0; i < indices.length; i++)
    taken.set(values.subarray(indices[i] * width, (indices[i] + 1) * width), i * width);
  return { shape: [indices.length, ...rest], values: taken };
}

/** Rows in an array of the batch. */
export const rowsOf = (data: Batch): number => Object.values(data)[0].shape[0];

/**
 * The batch of a step: epochs in random order, each without repetition, the rest of an epoch that fills no batch dropped.
 * Depends on seed and step alone.
 */
export function batchOfStep(data: Batch, batchSize: number, seed: number, step: number): Batch {
  const perEpoch = Math.floor(rowsOf(data) / batchSize);
  const epoch = Math.floor(step / perEpoch);
  const order = permutation(randomFor(seed, "order", epoch), rowsOf(data));
  const from = (step % perEpoch) * batchSize;
  return takeRows(data, order.subarray(from, from + batchSize));
}
