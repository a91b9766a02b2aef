import fc from "fast-check";
import { afterAll, expect, it } from "vitest";
import { type WeightFormatId, weightFormats } from "../../pack/index.js";
import { fromFloat32, toFloat32 } from "../../tensor/index.js";
import type { RowSource } from "../backend.js";
import type { ProgramMatrix } from "../program/storage.js";
import { createBackend } from "./index.js";

const backend = await createBackend({ threads: 2 });
afterAll(() => backend[Symbol.dispose]());

const dtypes = ["F32", "BF16", "F16"] as const;

const weight = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true, min: -100, max: 100 }),
  fc.constantFrom(0, -0, 2 ** -24, 2 ** -30, 60000, -60000, 1e-38),
);
const scale = fc.constantFrom(0, 0.25, 0.5, 1, 0.1, 2 ** -130, -1, Number.POSITIVE_INFINITY, 1e30);

it("packs every format and stored type bit for bit as src/pack does, special values and grids included", async () => {
  const cases = fc.record({
    rows: fc.integer({ min: 1, max: 80 }),
    cols: fc.integer({ min: 1, max: 80 }),
    dtype: fc.constantFrom(...dtypes),
    format: fc.constantFrom(...(Object.keys(weightFormats) as WeightFormatId[])),
    pool: fc.array(weight, { minLength: 1, maxLength: 97 }),
    scalePool: fc.option(fc.array(scale, { minLength: 1, maxLength: 7 }), { nil: undefined }),
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ rows, cols, dtype, format, pool, scalePool }) => {
      const stored = fromFloat32(
        dtype,
        Float32Array.from({ length: rows * cols }, (_, i) => pool[(i * 31) % pool.length]),
      );
      const rowBytes = stored.byteLength / rows;
      const groups = Math.ceil(cols / 32);
      const scales =
        scalePool && Float32Array.from({ length: rows * groups }, (_, i) => scalePool[i % scalePool.length]);
      const source: RowSource = {
        name: "w",
        rows,
        cols,
        dtype,
        read: async (start, count, into) => into.set(stored.subarray(start * rowBytes, (start + count) * rowBytes)),
        ...(scales && {
          scales: async (start, count, into) => into.set(scales.subarray(start * groups, (start + count) * groups)),
        }),
      };
      const matrix = (await backend.loadMatrix([source], format)) as ProgramMatrix;
      const packed = matrix.arena.bytes(matrix.offset, matrix.byteLength).slice();
      expect(packed).toEqual(weightFormats[format].pack(toFloat32(dtype, stored), rows, cols, scales));
    }),
    { numRuns: 300, seed: 1 },
  );
});
