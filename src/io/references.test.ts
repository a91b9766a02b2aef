import fc from "fast-check";
import { expect, test } from "vitest";
import type { TensorRef } from "../arch/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { memoryFiles, memorySinks, openCheckpoint, writeSafetensors } from "./index.js";
import { readReference, writeReference } from "./references.js";

async function checkpointOf(shape: readonly number[], values: Float32Array) {
  const files = new Map([["config.json", new TextEncoder().encode("{}")]]);
  await writeSafetensors(memorySinks(files), [
    { name: "w", dtype: "F32", shape, bytes: () => [fromFloat32("F32", values)] },
  ]);
  return openCheckpoint(memoryFiles("m", files));
}

const counting = (length: number) => Float32Array.from({ length }, (_, i) => i);

test("picks rows, undoes a transposed tensor and takes one of a stack", async () => {
  // W = [[0, 1], [2, 3], [4, 5], [6, 7]]
  const plain = await checkpointOf([4, 2], counting(8));
  const rows = { first: 1, run: 1, stride: 2, runs: 2 };
  expect([...(await readReference(plain, { tensor: "w", shape: [4, 2], rows }))]).toEqual([2, 3, 6, 7]);
  // Stored [cols, rows]: W[r][c] = stored[c][r].
  const turned = await checkpointOf([2, 4], counting(8));
  expect([...(await readReference(turned, { tensor: "w", shape: [2, 4], transposed: true, rows }))]).toEqual([
    1, 5, 3, 7,
  ]);
  const stack = await checkpointOf([2, 2, 3], counting(12));
  expect([...(await readReference(stack, { tensor: "w", shape: [2, 2, 3], stacked: 1 }))]).toEqual([
    6, 7, 8, 9, 10, 11,
  ]);
  const vector = await checkpointOf([6], counting(6));
  const middle = { first: 2, run: 2, stride: 2, runs: 1 };
  expect([...(await readReference(vector, { tensor: "w", shape: [6], rows: middle }))]).toEqual([2, 3]);
});

test("what was read is put back where it was", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        run: fc.integer({ min: 1, max: 3 }),
        maps: fc.integer({ min: 1, max: 3 }),
        runs: fc.integer({ min: 1, max: 3 }),
        cols: fc.integer({ min: 1, max: 4 }),
        transposed: fc.boolean(),
      }),
      async ({ run, maps, runs, cols, transposed }) => {
        const rows = run * maps * runs;
        const shape = transposed ? [cols, rows] : [rows, cols];
        const values = counting(rows * cols);
        const checkpoint = await checkpointOf(shape, values);
        const whole = new Float32Array(values.length);
        for (let m = 0; m < maps; m++) {
          const ref: TensorRef = {
            tensor: "w",
            shape,
            rows: { first: m * run, run, stride: maps * run, runs },
            ...(transposed && { transposed }),
          };
          writeReference(whole, ref, await readReference(checkpoint, ref));
        }
        expect(whole).toEqual(values);
      },
    ),
    { numRuns: 40 },
  );
});
