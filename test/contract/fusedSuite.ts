import { expect, it } from "vitest";
import { type ActivationFunction, UsageError } from "../../src/core/index.js";
import type { Activation, Backend } from "../../src/kernels/index.js";
import { wholeHeads } from "../../src/kernels/internal.js";
import { type BackendUnderTest, kvSpec, linearTolerance, loadStack, normals, upload, windowSight } from "./harness.js";

/** Operations that are several others at once, of a backend that has them, give what those give. */
export function fusedSuite(backend: () => Backend, { formats, tolerances, fewLayouts }: BackendUnderTest): void {
  for (const format of formats) {
    it(`linear ${format} with a gate: what gatedActivation and linear give, and counted alike`, async () => {
      const b = backend();
      expect(b.fusesGates).toBe(true);
      const tolerance = linearTolerance(tolerances, format).relative;
      for (const [outputs, cols] of [
        [160, 96],
        [100, 20],
        [40, 1100],
      ]) {
        const w = await loadStack(b, format, [outputs], cols, outputs);
        for (const rows of [1, 3]) {
          const [gateUp, hidden] = [upload(b, rows, 2 * cols, normals(cols, rows * 2 * cols)), b.allocate(rows, cols)];
          const [gate, up] = [gateUp.columns(0, cols), gateUp.columns(cols, cols)];
          const out = b.allocate(rows, outputs);
          for (const f of ["silu", "relu"] as ActivationFunction[]) {
            for (const options of [{}, { thresholds: [0.2] }, { thresholds: [0.2], accumulate: true }]) {
              const given = { up, f, gateThreshold: 0.1 };
              b.takeCounters();
              b.write(out, new Float32Array(rows * outputs).fill(1));
              b.linear(out, gate, w.handle, { ...options, gate: given });
              const fused = await b.read(out);
              const counted = b.takeCounters();
              b.write(out, new Float32Array(rows * outputs).fill(1));
              b.gatedActivation(hidden, gate, up, f, given);
              b.linear(out, hidden, w.handle, options);
              const apart = await b.read(out);
              expect(b.takeCounters()).toEqual(counted);
              const size = Math.max(...apart.map(Math.abs));
              for (const [i, value] of apart.entries())
                expect(Math.abs(fused[i] - value)).toBeLessThanOrEqual(2 * tolerance * size * Math.sqrt(cols) + 1e-6);
            }
          }
          for (const activation of [gateUp, hidden, out]) b.release(activation);
        }
      }
    });
  }

  for (const format of formats) {
    it(`linear ${format} between norms: what each operation gives by itself`, async () => {
      const b = backend();
      const tolerance = linearTolerance(tolerances, format).relative;
      for (const [hidden, wide] of [
        [160, 96],
        [36, 300],
        [1100, 40],
      ]) {
        const down = await loadStack(b, format, [hidden], wide, hidden);
        const up = await loadStack(b, format, [wide, 32], hidden, wide);
        const weight = b.loadVector(normals(1, hidden));
        const residual = normals(2, hidden);
        const run = async (wait: () => Promise<void>, thresholds: readonly number[] | undefined) => {
          const x = upload(b, 1, hidden, residual);
          const between = upload(b, 1, wide, normals(3, wide));
          const [normed, out] = [b.allocate(1, hidden), b.allocate(1, wide + 32)];
          b.takeCounters();
          const results: Float32Array[] = [];
          for (let layer = 0; layer < 3; layer++) {
            b.linear(x, between, down.handle, { accumulate: true, thresholds: thresholds?.slice(0, 1) });
            await wait();
            b.rmsNorm(normed, x, weight, 0.01);
            await wait();
            b.linear(out, normed, up.handle, { thresholds });
            // In the first layer the norm is read by another product, in the second by something else, in the third by nobody.
            if (layer === 0) b.linear(out, normed, up.handle, { accumulate: true });
            if (layer === 1) b.add(x, normed);
            await wait();
            b.gatedActivation(between, out.columns(0, wide), between, "silu");
          }
          results.push(await b.read(out), await b.read(normed), await b.read(x));
          for (const activation of [x, between, normed, out]) b.release(activation);
          return { results, counters: b.takeCounters() };
        };
        for (const thresholds of [undefined, [0.3, 0.5]]) {
          const joined = await run(async () => {}, thresholds);
          const apart = await run(() => b.flush(), thresholds);
          expect(joined.counters).toEqual(apart.counters);
          for (const [i, values] of apart.results.entries()) {
            const size = Math.max(...values.map(Math.abs));
            for (const [j, value] of values.entries())
              expect(Math.abs(joined.results[i][j] - value)).toBeLessThanOrEqual(
                20 * tolerance * size * Math.sqrt(hidden) + 1e-6,
              );
          }
        }
      }
    });
  }

  it("between norms: what is written or given back meanwhile stays as it is", async () => {
    const b = backend();
    const cols = 64;
    const square = await loadStack(b, "f32", [cols], cols, 1);
    const weight = b.loadVector(new Float32Array(cols).fill(1));
    const x = upload(b, 1, cols, normals(2, cols));
    const joined = (out: Activation) => {
      b.linear(x, out, square.handle, { accumulate: true });
      b.rmsNorm(out, x, weight, 0.01);
    };
    const input = upload(b, 1, cols, normals(3, cols));
    const values = normals(4, cols);
    for (const take of ["written", "partly written", "given back"] as const) {
      const normed = b.allocate(1, cols);
      b.linear(x, input, square.handle, { accumulate: true });
      b.rmsNorm(normed, x, weight, 0.01);
      let kept: Activation = normed;
      if (take === "partly written") {
        b.write(normed.columns(0, 32), values.subarray(0, 32));
        b.write(normed.columns(32, 32), values.subarray(32));
      } else {
        if (take === "given back") {
          b.release(normed);
          kept = b.allocate(1, cols);
        }
        b.write(kept, values);
      }
      // Norms after it, as many as make what belongs to the first one new.
      for (let i = 0; i < 3; i++) {
        const other = b.allocate(1, cols);
        b.linear(x, input, square.handle, { accumulate: true });
        b.rmsNorm(other, x, weight, 0.01);
        await b.flush();
        b.release(other);
      }
      joined(input);
      expect(await b.read(kept)).toEqual(values);
      b.release(kept);
    }
    for (const activation of [x, input]) b.release(activation);
  });

  it("choose: what topK gives, embedded before it is read, read once, counts with it", async () => {
    const b = backend();
    const [rows, cols, vocabulary] = [3, 40, 9000];
    const table = await loadStack(b, "bf16", [vocabulary], cols, 5);
    const down = await loadStack(b, "f32", [cols], cols, 6);
    const logits = upload(b, rows, vocabulary, normals(8, rows * vocabulary));
    const expected = await b.topK(logits, 1);
    const [embedded, wanted] = [b.allocate(rows, cols), b.allocate(rows, cols)];
    b.embed(
      wanted,
      table.handle,
      Uint32Array.from(expected, ({ ids }) => ids[0]),
    );
    const before = b.memoryBytes();
    const one = wanted.rowRange(0, 1);
    b.takeCounters();
    b.linear(one, upload(b, 1, cols, normals(2, cols)), down.handle, { thresholds: [0.5] });
    const chosen = b.choose!(logits);
    expect(chosen.length).toBe(rows);
    const abandoned = b.choose!(logits.rowRange(1, 1));
    chosen.embed(embedded, table.handle);
    // Enqueued after it, and not waited for: another product, another choice.
    b.linear(one, embedded.rowRange(0, 1), down.handle, { thresholds: [0.5] });
    const second = b.choose!(logits.rowRange(2, 1));
    expect(await chosen.read()).toEqual(expected);
    expect(b.takeCounters().inputs).toBe(cols);
    abandoned[Symbol.dispose]();
    expect(await second.read()).toEqual([expected[2]]);
    expect(b.takeCounters().inputs).toBe(cols);
    b.embed(
      wanted,
      table.handle,
      Uint32Array.from(expected, ({ ids }) => ids[0]),
    );
    expect(await b.read(embedded)).toEqual(await b.read(wanted));
    await expect(chosen.read()).rejects.toThrow(UsageError);
    expect(() => second.embed(embedded, table.handle)).toThrow(UsageError);
    expect(b.memoryBytes()).toBe(before + cols * 4);
    for (const activation of [logits, embedded, wanted]) b.release(activation);
  });

  it("rotatedAttention: what rope, appendKv and attention give", async () => {
    const b = backend();
    const positions = 40;
    const layouts = [
      { queryHeads: 4, kvHeads: 2, headDim: 16, rows: 1, start: 30 },
      { queryHeads: 4, kvHeads: 4, headDim: 64, rows: 1, start: 39 },
      { queryHeads: 4, kvHeads: 1, headDim: 32, rows: 1, start: 39, window: 7 },
      { queryHeads: 2, kvHeads: 1, headDim: 32, rows: 1, start: 0 },
      // Slots are not positions.
      { queryHeads: 2, kvHeads: 1, headDim: 32, rows: 1, start: 3, position: 37 },
      { queryHeads: 2, kvHeads: 1, headDim: 32, rows: 4, start: 3, position: 36 },
      { queryHeads: 4, kvHeads: 2, headDim: 20, rows: 1, start: 30 },
      { queryHeads: 6, kvHeads: 1, headDim: 20, rows: 7, start: 5 },
      { queryHeads: 8, kvHeads: 8, headDim: 64, rows: 33, start: 0 },
    ];
    const tried = fewLayouts ? layouts.filter(({ headDim }) => headDim === 32) : layouts;
    for (const { queryHeads, kvHeads, headDim, rows, start, window, position = start } of tried) {
      const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
      const width = queryWidth + 2 * kvWidth;
      const angles = normals(headDim, (positions * headDim) / 2);
      const table = b.loadRope(angles.map(Math.cos), angles.map(Math.sin), wholeHeads(headDim));
      const values = normals(rows, rows * width);
      const results: Float32Array[] = [];
      for (const fused of [true, false]) {
        using cache = b.createKvCache(kvSpec(2, kvHeads, headDim, positions));
        const earlier = upload(b, start || 1, kvWidth, normals(7, (start || 1) * kvWidth));
        b.appendKv(cache, 1, earlier, earlier, 0);
        const qkv = upload(b, rows, width, values);
        const q = qkv.columns(0, queryWidth);
        const [k, v] = [qkv.columns(queryWidth, kvWidth), qkv.columns(queryWidth + kvWidth, kvWidth)];
        const out = b.allocate(rows, queryWidth);
        using sight = windowSight(b, window);
        const options = { queryHeads, scale: 1 / Math.sqrt(headDim), start, sight };
        if (fused) b.rotatedAttention!(out, { q, k, v }, table, cache, 1, { ...options, position });
        else {
          b.rope(q, table, position);
          b.rope(k, table, position);
          b.appendKv(cache, 1, k, v, start);
          b.attention(out, q, cache, 1, options);
        }
        results.push(await b.read(out));
        // What is in the cache then.
        const other = upload(b, 1, queryWidth, normals(9, queryWidth));
        b.attention(out.rowRange(0, 1), other, cache, 1, { ...options, start: start + rows - 1, sight: undefined });
        results.push((await b.read(out)).subarray(0, queryWidth));
        for (const activation of [earlier, qkv, out, other]) b.release(activation);
      }
      for (const i of [0, 1]) {
        for (const [d, value] of results[i].entries()) expect(Math.abs(value - results[i + 2][d])).toBeLessThan(1e-5);
      }
    }
  });
}
