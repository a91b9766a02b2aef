import { expect, test } from "vitest";
import type { RowSource } from "../kernels/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { sparsityProfile } from "./sparsityProfile.js";

function source(rows: number, cols: number, dtype: "F32" | "BF16", weight: (row: number, c: number) => number) {
  const values = Float32Array.from({ length: rows * cols }, (_, i) => weight(Math.floor(i / cols), i % cols));
  const bytes = fromFloat32(dtype, values);
  const reads: number[] = [];
  const rowBytes = bytes.byteLength / rows;
  const opened: RowSource = {
    name: "w",
    rows,
    cols,
    dtype,
    async read(start, count, into) {
      reads.push(count);
      into.set(bytes.subarray(start * rowBytes, (start + count) * rowBytes));
    },
  };
  return { opened, reads };
}

test.each(["F32", "BF16"] as const)("counts what is not 0 over all parts of %s, -0 being 0", async (dtype) => {
  const first = source(300, 40, dtype, (row, c) => ((row + c) % 4 < 2 ? 1 : -0));
  const second = source(20, 40, dtype, (_row, c) => (c === 5 ? 2 ** -20 : 0));
  expect(await sparsityProfile([first.opened, second.opened])).toEqual({
    rows: 320,
    cols: 40,
    density: (300 * 20 + 20) / (320 * 40),
    // All of 10 × 2 blocks, and the left one of 2.
    blockDensity: 21 / 22,
    twoOfFour: true,
  });
});

test("one row with three of four ends 2:4, wherever it is; a last four may be short", async () => {
  for (const row of [0, 150, 299]) {
    const { opened } = source(300, 10, "BF16", (r, c) => (r === row && c < 3 ? 1 : 0));
    expect((await sparsityProfile([opened])).twoOfFour, `row ${row}`).toBe(false);
  }
  const { opened } = source(8, 10, "BF16", (_r, c) => (c >= 8 ? 1 : 0));
  expect((await sparsityProfile([opened])).twoOfFour).toBe(true);
});

test("a matrix without zeros is not read to its end", async () => {
  const { opened, reads } = source(1000, 16, "BF16", () => 1);
  expect(await sparsityProfile([opened])).toMatchObject({ density: 1, blockDensity: 1, twoOfFour: false });
  expect(reads).toEqual([128]);
});
