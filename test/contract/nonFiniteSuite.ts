import { expect, it } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import { type BackendUnderTest, kvSpec, normals, packed, rowSource, upload } from "./harness.js";

const wrongNumbers = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
const anyWrong = (values: Float32Array) => values.some((value) => !Number.isFinite(value));

/** A number that is not finite must show in the result of every operation, also where small ones are skipped. */
export function nonFiniteSuite(backend: () => Backend, { formats }: BackendUnderTest): void {
  const [rows, cols] = [64, 96];

  for (const format of formats) {
    it(`loadMatrix ${format}: tells of rows that hold NaN or infinity, wherever it is, and of no others`, async () => {
      const b = backend();
      const [rows, cols] = [70, 100];
      const kept = (i: number) => (Math.floor(i / cols) + i) % 4 < 2;
      const values = normals(3, rows * cols).map((value, i) => (kept(i) ? value : 0));
      // Large ones are no infinities.
      values[0] = 6e4;
      const cases = [
        ["F16", 0, undefined],
        ["F32", Number.NaN, 0],
        ["BF16", Number.POSITIVE_INFINITY, 3 * cols + 97],
        ["F16", Number.NEGATIVE_INFINITY, rows * cols - 1],
      ] as const;
      for (const [dtype, wrong, at] of cases) {
        const stored = values.slice();
        if (at !== undefined) stored[at] = wrong;
        const told: boolean[] = Array(rows).fill(false);
        const source = {
          ...rowSource("w", stored, rows, cols, dtype),
          onNonFinite: async (start: number, count: number) => void told.fill(true, start, start + count),
        };
        using region = b.openRegion({ weightBytes: 0 });
        await region.loadMatrix([source], format);
        const what = `${dtype}, ${wrong} at ${at}`;
        if (at === undefined) expect(told, what).not.toContain(true);
        else expect(told[Math.floor(at / cols)], what).toBe(true);
      }
    });
  }

  for (const format of formats) {
    it(`linear ${format}: one input that is NaN or infinite shows, dense and skipping, for one row and several`, async () => {
      const b = backend();
      // Two of four inputs of every row, each input in some row.
      const kept = (i: number) => (Math.floor(i / cols) + i) % 4 < 2;
      const values = normals(5, rows * cols).map((value, i) => (kept(i) ? value : 0));
      const w = await b.loadMatrix([rowSource("w", packed(format, values, rows, cols).values, rows, cols)], format);
      for (const wrong of wrongNumbers) {
        for (const n of [1, 5]) {
          for (const thresholds of [undefined, [0], [0.5], [100]]) {
            const x = normals(7, n * cols);
            x[cols * (n - 1) + 41] = wrong;
            const [xs, out] = [upload(b, n, cols, x), b.allocate(n, rows)];
            b.linear(out, xs, w, { thresholds });
            const result = await b.read(out);
            const what = `${wrong} in row ${n} of ${n}, thresholds ${thresholds}`;
            expect(anyWrong(result.subarray(rows * (n - 1))), what).toBe(true);
            // LLM.int8() and 8-bit inputs share a scale within a row only.
            expect(anyWrong(result.subarray(0, rows * (n - 1))), `${what}: other rows`).toBe(false);
            b.release(xs);
            b.release(out);
          }
        }
      }
    });
  }

  it("gatedActivation: what is not finite shows, with and without a threshold", async () => {
    const b = backend();
    for (const f of ["silu", "relu", "gelu", "geluTanh", "relu2"] as const) {
      for (const gateThreshold of [0, 0.5]) {
        const gates = normals(1, 8);
        const ups = normals(2, 8);
        gates[1] = ups[5] = Number.NaN;
        gates[5] = 3;
        const [gate, up, out] = [upload(b, 1, 8, gates), upload(b, 1, 8, ups), b.allocate(1, 8)];
        b.gatedActivation(out, gate, up, f, { gateThreshold });
        const result = await b.read(out);
        expect([result[1], result[5]], `${f}, ${gateThreshold}`).toEqual([Number.NaN, Number.NaN]);
        for (const activation of [gate, up, out]) b.release(activation);
      }
    }
  });

  it("rmsNorm: rows whose squares leave the range of f32, and rows with a number that is not finite, show", async () => {
    const b = backend();
    for (const wrong of [...wrongNumbers, 1e25]) {
      const x = normals(3, 3 * 32);
      x[32 + 7] = wrong;
      const [xs, out] = [upload(b, 3, 32, x), b.allocate(3, 32)];
      b.rmsNorm(out, xs, b.loadVector(new Float32Array(32).fill(1)), 1e-6);
      const result = await b.read(out);
      expect(anyWrong(result.subarray(32, 64)), `${wrong}`).toBe(true);
      expect(anyWrong(result.subarray(0, 32)) || anyWrong(result.subarray(64)), `${wrong}: other rows`).toBe(false);
      b.release(xs);
      b.release(out);
    }
  });

  it("attention: a query, a key or a value that is NaN shows", async () => {
    const b = backend();
    const [length, headDim] = [70, 16];
    for (const which of [0, 1, 2]) {
      using cache = b.createKvCache(kvSpec(1, 1, headDim, length));
      const data = [1, 2, 3].map((seed) => normals(seed, length * headDim));
      data[which][(which === 0 ? length - 1 : 3) * headDim + 5] = Number.NaN;
      const [q, k, v] = data.map((values) => upload(b, length, headDim, values));
      const out = b.allocate(length, headDim);
      b.appendKv(cache, 0, k, v, 0);
      b.attention(out, q, cache, 0, { queryHeads: 1, scale: 0.25, start: 0 });
      const result = await b.read(out);
      expect(anyWrong(result.subarray((length - 1) * headDim)), ["query", "key", "value"][which]).toBe(true);
      for (const activation of [q, k, v, out]) b.release(activation);
    }
  });

  it("topK: NaN comes first, wherever it lies", async () => {
    const b = backend();
    const cols = 9000;
    for (const place of [0, 1, 4095, 4096, cols - 1]) {
      for (const k of [1, 3]) {
        const values = normals(4, cols);
        values[place] = Number.NaN;
        const x = upload(b, 1, cols, values);
        const [{ ids, values: found }] = await b.topK(x, k);
        expect([ids[0], found[0]], `${place} of ${cols}, k = ${k}`).toEqual([place, Number.NaN]);
        expect([...found.subarray(1)].every(Number.isFinite)).toBe(true);
        b.release(x);
      }
    }
  });
}
