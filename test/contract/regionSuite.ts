import { expect, it } from "vitest";
import { UsageError } from "../../src/core/index.js";
import type { Backend, Matrix, RowSource, WeightLoading } from "../../src/kernels/index.js";
import { wholeHeads } from "../../src/kernels/internal.js";
import { type BackendUnderTest, loadStack, normals, rowSource, thinned, upload } from "./harness.js";

/** Weights that are given back before their backend is. */
export function regionSuite(backend: () => Backend, { create, createAlone, formats }: BackendUnderTest): void {
  const plan = { weightBytes: 2 ** 16 };
  const source = (seed: number, rows = 64, cols = 64) => rowSource("w", normals(seed, rows * cols, 0.5), rows, cols);

  for (const format of formats) {
    it(`region ${format}: what is loaded multiplies as ever, again and again in the same place, and others stay`, async () => {
      const b = backend();
      const before = b.memoryBytes();
      const x = upload(b, 2, 64, normals(3, 128));
      const out = b.allocate(2, 96);
      const product = async (matrix: Matrix) => {
        b.linear(out, x, matrix);
        return b.read(out);
      };
      const load = async (loading: WeightLoading, seed: number) =>
        (await loadStack(loading, format, [64, 32], 64, seed)).handle;
      const beside = b.openRegion(plan);
      const kept = await load(beside, 5);
      const expected = await product(kept);
      const places: unknown[] = [];
      for (const seed of [5, 6, 5]) {
        const held = b.memoryBytes();
        const region = b.openRegion(plan);
        const matrix = await load(region, seed);
        expect(b.memoryBytes() - held).toBeGreaterThanOrEqual(matrix.byteLength);
        if ("offset" in matrix) places.push(matrix.offset);
        if (seed === 5) expect(await product(matrix)).toEqual(expected);
        else expect(await product(matrix)).not.toEqual(expected);
        // Still enqueued when its weights go.
        b.linear(out, x, matrix);
        region[Symbol.dispose]();
        expect(b.memoryBytes()).toBe(held);
        if (seed === 5) expect(await b.read(out)).toEqual(expected);
        expect(await product(kept)).toEqual(expected);
      }
      // In a memory that only grows, what was given back serves again.
      expect(places[2]).toBe(places[0]);
      beside[Symbol.dispose]();
      b.release(x);
      b.release(out);
      expect(b.memoryBytes()).toBe(before);
    });

    it(`region ${format}: experts are given back whole`, async () => {
      const b = backend();
      const before = b.memoryBytes();
      const region = b.openRegion(plan);
      const experts = [1, 2, 3].map((seed) => [
        rowSource(`expert ${seed}`, thinned(format, normals(seed, 1024), 32, seed), 32, 32),
      ]);
      const loaded = await region.loadExperts(experts, format);
      expect(loaded.experts).toBe(3);
      expect(b.memoryBytes()).toBeGreaterThan(before);
      region[Symbol.dispose]();
      expect(b.memoryBytes()).toBe(before);
      const failing: RowSource = { ...source(4, 32, 32), read: () => Promise.reject(new Error("the disk is gone")) };
      using other = b.openRegion(plan);
      await expect(other.loadExperts([...experts, [failing]], format)).rejects.toThrow("the disk is gone");
      expect(b.memoryBytes()).toBe(before);
    });
  }

  it("region: vectors and tables come and go with it; disposing of it may be repeated", async () => {
    const b = backend();
    const before = b.memoryBytes();
    const x = upload(b, 1, 4, Float32Array.of(1, 2, 3, 4));
    const region = b.openRegion(plan);
    const [weight, bias] = [
      region.loadVector(Float32Array.of(1, 1, 1, 1)),
      region.loadVector(Float32Array.of(4, 3, 2, 1)),
    ];
    const table = region.loadRope(Float32Array.of(0, 0), Float32Array.of(1, 1), wholeHeads(4));
    b.layerNorm(x, x, weight, bias, 0);
    b.rope(x, table, 0);
    region[Symbol.dispose]();
    region[Symbol.dispose]();
    const [a, c] = [3 / Math.sqrt(5), 1 / Math.sqrt(5)];
    const expected = [-(2 + c), -(1 + a), 4 - a, 3 - c];
    for (const [i, value] of (await b.read(x)).entries()) expect(value).toBeCloseTo(expected[i], 5);
    b.release(x);
    expect(b.memoryBytes()).toBe(before);
  });

  it("region: after it is disposed of, it loads nothing, and nothing of it can be used", async () => {
    const b = backend();
    const region = b.openRegion(plan);
    const matrix = await region.loadMatrix([source(1)], "f32");
    const vector = region.loadVector(new Float32Array(64));
    const table = region.loadRope(new Float32Array(2), new Float32Array(2), wholeHeads(4));
    const loading = region.loadMatrix([source(2)], "f32");
    region[Symbol.dispose]();
    await expect(loading).rejects.toThrow(UsageError);
    await expect(region.loadMatrix([source(1)], "f32")).rejects.toThrow(UsageError);
    expect(() => region.loadVector(new Float32Array(4))).toThrow(UsageError);
    const other = await loadStack(b, "f32", [64], 64);
    const x = upload(b, 1, 64, new Float32Array(64));
    const out = b.allocate(1, 64);
    const uses = [
      () => b.linear(out, x, matrix),
      () => b.linear(out, x, other.handle, { bias: vector }),
      () => b.rmsNorm(x, x, vector, 1e-6),
      () => b.embed(x, matrix, Uint32Array.of(0)),
      () => b.rope(x, table, 0),
    ];
    for (const use of uses) expect(use).toThrow("weights of a region that was disposed of");
    using another = b.openRegion(plan);
    await expect(another.loadMatrix([], "f32")).rejects.toThrow("no parts");
    b.release(x);
    b.release(out);
  });

  it("region: one that outlives its backend is given back without a word", async () => {
    const own = await (createAlone ?? create)();
    const region = own.openRegion(plan);
    await region.loadMatrix([source(1)], "f32");
    region.loadVector(new Float32Array(4));
    own[Symbol.dispose]();
    region[Symbol.dispose]();
    expect(own.memoryBytes()).toBe(0);
    expect(() => own.openRegion(plan)).toThrow(UsageError);
  });
}
