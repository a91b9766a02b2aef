import { expect, test } from "vitest";
import type { Checkpoint } from "../io/index.js";
import { tensorRows } from "./tensorRows.js";

test("rows come by range; those beyond what is stored are zeros, whatever the buffer held", async () => {
  const stored = Uint8Array.from({ length: 3 * 2 * 2 }, (_, i) => i + 1);
  const checkpoint = {
    tensors: new Map([["w", { name: "w", dtype: "BF16", shape: [3, 2] }]]),
    async read(_name: string, offset: number, length: number, into = new Uint8Array(length)) {
      into.set(stored.subarray(offset, offset + length));
      return into;
    },
  } as unknown as Checkpoint;
  const read: number[] = [];
  const suspects: unknown[] = [];
  const source = tensorRows(checkpoint, { tensor: "w", shape: [3, 2] }, 5, {
    onRead: (_, byteLength) => read.push(byteLength),
    onSuspect: (_, bytes, first) => suspects.push([[...bytes], first]),
  });
  expect([source.rows, source.cols, source.dtype]).toEqual([5, 2, "BF16"]);

  const rows = async (start: number, count: number) => {
    const into = new Uint8Array(count * 4).fill(99);
    await source.read(start, count, into);
    return [...into];
  };
  expect(await rows(1, 1)).toEqual([5, 6, 7, 8]);
  expect(await rows(2, 2)).toEqual([9, 10, 11, 12, 0, 0, 0, 0]);
  expect(await rows(3, 2)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  await source.onNonFinite!(1, 4);
  expect(suspects).toEqual([[[5, 6, 7, 8, 9, 10, 11, 12], 2]]);
  expect(read).toEqual([4, 4]);
});

test("scales of a symmetric grid come per 32 inputs; other grids show none", async () => {
  const open = (grid: object) => {
    const info = {
      name: "w",
      dtype: "F32",
      shape: [2, 100],
      grid: { bits: 4, symmetric: true, groupSize: 64, ...grid },
    };
    const checkpoint = {
      tensors: new Map([["w", info]]),
      readScales: async (_name: string, start: number, count: number) =>
        Float32Array.of(1, 2, 3, 4).slice(start * 2, (start + count) * 2),
    } as unknown as Checkpoint;
    return tensorRows(checkpoint, { tensor: "w", shape: [] }, 4, { onRead() {}, onSuspect() {} });
  };
  const into = new Float32Array(3 * 4).fill(99);
  await open({}).scales!(1, 3, into);
  expect([...into]).toEqual([3, 3, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
  expect(open({ groupSize: 100 }).scales).toBeDefined();
  expect(open({ groupSize: 48 }).scales).toBeUndefined();
  expect(open({ symmetric: false }).scales).toBeUndefined();
});
