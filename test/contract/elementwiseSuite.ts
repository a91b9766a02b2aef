import { expect, it } from "vitest";
import type { ActivationFunction } from "../../src/core/index.js";
import type { Backend, ElementFunction, RopeLayout } from "../../src/kernels/index.js";
import { wholeHeads } from "../../src/kernels/internal.js";
import { type BackendUnderTest, columnsOf, expectWithin, loadStack, normals, upload } from "./harness.js";
import * as oracle from "./oracle.js";

export function elementwiseSuite(backend: () => Backend, { formats, tolerances }: BackendUnderTest): void {
  const tolerance = tolerances.elementwise;

  for (const format of formats) {
    it(`embed ${format}: rows of the table, exactly what the packed bytes stand for`, async () => {
      const b = backend();
      for (const [rows, cols] of [
        [300, 96],
        [36, 20],
        [5, 100],
      ]) {
        const table = await loadStack(b, format, [rows], cols, 3);
        const ids = Uint32Array.of(0, rows - 1, 3, 3, Math.floor(rows / 2), 1, 4);
        const out = b.allocate(ids.length, cols);
        b.embed(out, table.handle, ids.slice());
        const one = b.allocate(3, cols + 4);
        b.embed(one.rowRange(1, 1).columns(4, cols), table.handle, Uint32Array.of(2));
        const row = (id: number) => table.values.slice(id * cols, (id + 1) * cols);
        const result = await b.read(out);
        for (const [r, id] of ids.entries()) expect(result.slice(r * cols, (r + 1) * cols)).toEqual(row(id));
        expect(await b.read(one.rowRange(1, 1).columns(4, cols))).toEqual(row(2));
        b.release(out);
        b.release(one);
      }
    });
  }

  it("swapAxes and reshape: the axis behind the first comes to the front, in rows of other widths, into views", async () => {
    const b = backend();
    for (const [n, lead, turned, run] of [
      [1, 1, 8, 1],
      [3, 5, 4, 3],
      [2, 32, 16, 6],
      [70, 4, 2, 1],
    ]) {
      const cols = lead * turned * run;
      const values = normals(cols, n * cols);
      const x = upload(b, n, cols, values);
      const wide = b.allocate(n, cols + 4);
      b.swapAxes(wide.columns(4, cols), x, { turned, run });
      const wanted = values.slice();
      for (let r = 0; r < n; r++) {
        for (let i = 0; i < cols; i++) {
          const [a, t, k] = [Math.floor(i / (turned * run)), Math.floor(i / run) % turned, i % run];
          wanted[r * cols + (t * lead + a) * run + k] = values[r * cols + i];
        }
      }
      expect(await b.read(wide.columns(4, cols))).toEqual(wanted);
      expect(await b.read(x.reshape(4))).toEqual(values);
      expect(await b.read(x.rowRange(n - 1, 1).reshape(4))).toEqual(values.slice((n - 1) * cols));
      expect(() => x.reshape(5)).toThrow(/columns come in fours/);
      if (n > 1) expect(() => wide.columns(0, 4).reshape(4)).toThrow(/a part of wider rows/);
      b.release(x);
      b.release(wide);
    }
  });

  it(`rmsNorm: rows and heads, in place and into views, |Δ| ≤ ${tolerance}·|y| + 1e-6`, async () => {
    const b = backend();
    for (const [n, cols, width] of [
      [1, 20, 20],
      [5, 300, 300],
      [3, 96, 16],
      [130, 64, 4],
      [2, 2048, 2048],
    ]) {
      const x = normals(cols, n * cols, 3);
      const weights = normals(width, width);
      const weight = b.loadVector(weights);
      const expected = oracle.rmsNorm(x, weights, 1e-5, tolerance);
      const xs = upload(b, n, cols, x);
      const wide = b.allocate(n, cols + 8);
      b.rmsNorm(wide.columns(4, cols), xs, weight, 1e-5);
      expectWithin(await b.read(wide.columns(4, cols)), expected, `${n} × ${cols} by ${width} into a view`);
      b.rmsNorm(xs, xs, weight, 1e-5);
      expectWithin(await b.read(xs), expected, `${n} × ${cols} by ${width} in place`);
      b.release(xs);
      b.release(wide);
    }
  });

  it(`layerNorm: rows and runs, with and without a bias, in place and into views, |Δ| ≤ ${tolerance}·(|y| + |x·w|/σ)`, async () => {
    const b = backend();
    for (const [n, cols, width] of [
      [1, 20, 20],
      [5, 300, 300],
      [3, 96, 16],
      [130, 64, 4],
      [2, 2048, 2048],
    ]) {
      // Far from 0, as residual streams are: the mean has to go before squares are summed.
      const x = normals(cols, n * cols, 3).map((v) => v + 5);
      const weights = normals(width, width);
      const weight = b.loadVector(weights);
      for (const biases of [undefined, normals(width + 1, width)]) {
        const bias = biases && b.loadVector(biases);
        const expected = oracle.layerNorm(x, weights, biases, 1e-5, tolerance);
        const xs = upload(b, n, cols, x);
        const wide = b.allocate(n, cols + 8);
        b.layerNorm(wide.columns(4, cols), xs, weight, bias, 1e-5);
        expectWithin(await b.read(wide.columns(4, cols)), expected, `${n} × ${cols} by ${width} into a view`);
        b.layerNorm(xs, xs, weight, bias, 1e-5);
        expectWithin(await b.read(xs), expected, `${n} × ${cols} by ${width} in place`);
        b.release(xs);
        b.release(wide);
      }
    }
  });

  type InF64 = [string, ElementFunction, (x: number) => number];
  const inF64: InF64[] = [
    ...(Object.keys(oracle.activations) as ActivationFunction[]).map((f): InF64 => [f, f, oracle.activations[f]]),
    ["scale", { f: "scale", by: -3.5 }, (x) => -3.5 * x],
    ["softcap", { f: "softcap", by: 30 }, (x) => 30 * Math.tanh(x / 30)],
    ["softcap, tight", { f: "softcap", by: 0.5 }, (x) => 0.5 * Math.tanh(x / 0.5)],
    ["clamp", { f: "clamp", by: 1.5 }, (x) => Math.min(Math.max(x, -1.5), 1.5)],
  ];
  for (const [name, f, expected] of inF64) {
    it(`map ${name}: rows, in place and into views, also extreme`, async () => {
      const b = backend();
      for (const [n, cols] of [
        [1, 4],
        [7, 100],
        [33, 36],
      ]) {
        const x = normals(n + cols, n * cols, 3);
        x.set([0, -0.001, 200, -200]);
        const values = Float64Array.from(x, expected);
        const by = typeof f === "string" ? 1 : Math.abs(f.by);
        const bounds = values.map((v, i) => tolerance * Math.abs(v) + 1e-6 * (by + Math.abs(x[i])));
        const xs = upload(b, n, cols, x);
        const wide = b.allocate(n, cols + 8);
        b.map(wide.columns(4, cols), xs, f);
        expectWithin(await b.read(wide.columns(4, cols)), { values, bounds }, `${n} × ${cols} into a view`);
        b.map(xs, xs, f);
        expectWithin(await b.read(xs), { values, bounds }, `${n} × ${cols} in place`);
        b.release(xs);
        b.release(wide);
      }
    });
  }

  it("rmsNorm: rows of 0 stay 0; rows of 1e-20 and of 1e18 stay finite", async () => {
    const b = backend();
    const x = new Float32Array(3 * 32);
    x.fill(1e-20, 32, 64);
    x.fill(1e18, 64);
    const xs = upload(b, 3, 32, x);
    b.rmsNorm(xs, xs, b.loadVector(new Float32Array(32).fill(2)), 1e-6);
    const result = await b.read(xs);
    expect(result.slice(0, 32)).toEqual(new Float32Array(32));
    for (const v of result.slice(32, 64)) expect(Math.abs(v - 2e-17)).toBeLessThan(1e-20);
    for (const v of result.slice(64)) expect(Math.abs(v - 2)).toBeLessThan(1e-4);
    b.release(xs);
  });

  it(`rope: every head of every row by its position, other columns kept, |Δ| ≤ ${tolerance}·(|a| + |b|)`, async () => {
    const b = backend();
    const cases: [number, number, number, number, Partial<RopeLayout>?][] = [
      [1, 1, 4, 0],
      [1, 4, 16, 37],
      [17, 2, 20, 5],
      [64, 8, 64, 100],
      [3, 1, 128, 200],
      [17, 2, 20, 5, { width: 10 }],
      [3, 4, 16, 100, { width: 4 }],
      [2, 3, 24, 9, { first: 16, width: 8 }],
      [17, 2, 20, 5, { pairs: "neighbours" }],
      [1, 3, 24, 77, { first: 16, width: 8, pairs: "neighbours" }],
      [5, 2, 64, 7, { first: 2, width: 6, pairs: "neighbours" }],
    ];
    for (const [n, heads, headDim, start, part] of cases) {
      const cols = heads * headDim;
      const layout = { ...wholeHeads(headDim), ...part };
      const table = oracle.ropeTable(256, layout.width, 10000);
      const handle = b.loadRope(table.cos, table.sin, layout);
      const x = normals(n, n * cols);
      const before = normals(1, n * (cols + 8));
      const wide = upload(b, n, cols + 8, before);
      b.write(wide.columns(4, cols), x);
      b.rope(wide.columns(4, cols), handle, start);
      const result = await b.read(wide);
      const expected = oracle.rope(x, cols, layout, 10000, start, tolerance);
      const what = `${n} rows of ${heads} heads from ${start}, ${JSON.stringify(layout)}`;
      expectWithin(columnsOf(result, cols + 8, 4, cols), expected, what);
      expect(columnsOf(result, cols + 8, 0, 4)).toEqual(columnsOf(before, cols + 8, 0, 4));
      expect(columnsOf(result, cols + 8, cols + 4, 4)).toEqual(columnsOf(before, cols + 8, cols + 4, 4));
      b.release(wide);
    }
  });

  for (const f of Object.keys(oracle.activations) as ActivationFunction[]) {
    it(`gatedActivation ${f}: also in place and extreme, |Δ| ≤ ${tolerance}·|f(gate)·up| + 1e-6·|gate·up|`, async () => {
      const b = backend();
      for (const [n, cols] of [
        [1, 4],
        [1, 300],
        [7, 100],
        [33, 36],
      ]) {
        const gate = normals(n, n * cols, 3);
        gate.set([0, -0.001, 200, -200].slice(0, gate.length));
        const up = normals(n + 1, n * cols, 2);
        const expected = oracle.gated(gate, up, f, 0, tolerance);
        const both = b.allocate(n, 2 * cols);
        const [g, u] = [both.columns(0, cols), both.columns(cols, cols)];
        const out = b.allocate(n, cols);
        b.write(g, gate);
        b.write(u, up);
        b.gatedActivation(out, g, u, f);
        expectWithin(await b.read(out), expected, `${n} × ${cols}`);
        b.gatedActivation(g, g, u, f);
        expectWithin(await b.read(g), expected, `${n} × ${cols} over the gate`);
        b.write(g, gate);
        b.gatedActivation(u, g, u, f);
        expectWithin(await b.read(u), expected, `${n} × ${cols} over up`);
        b.release(both);
        b.release(out);
      }
    });

    it(`gatedActivation ${f}: |f(gate)| below the threshold becomes exactly 0`, async () => {
      const b = backend();
      const threshold = 0.25;
      // Keep clear of the threshold by 1e-3, so that rounding cannot decide.
      const gate = normals(5, 400, 2).map((v) =>
        Math.abs(Math.abs(oracle.activations[f](v)) - threshold) < 1e-3 ? 2 : v,
      );
      const up = normals(6, 400);
      const g = upload(b, 4, 100, gate);
      const u = upload(b, 4, 100, up);
      b.gatedActivation(u, g, u, f, { gateThreshold: threshold });
      const result = await b.read(u);
      const expected = oracle.gated(gate, up, f, threshold, tolerance);
      expectWithin(result, expected, "thresholded");
      const zeros = [...expected.values].filter((v) => v === 0).length;
      expect(zeros).toBeGreaterThan(20);
      expect(zeros).toBeLessThan(380);
      for (const [i, v] of expected.values.entries()) if (v === 0) expect(Math.abs(result[i])).toBe(0);
      b.release(g);
      b.release(u);
    });
  }

  it("gatedActivation: clamped gates and factors (gpt-oss), in place and with a threshold", async () => {
    const b = backend();
    const [gate, up] = [normals(31, 3 * 20, 6), normals(32, 3 * 20, 6)];
    gate.set([100, -100, 7, -7, 0]);
    up.set([50, -50, 7, -7, -1]);
    const clamped = { limit: 7, sharpness: 1.702 };
    for (const gateThreshold of [0, 0.5]) {
      const [g, u] = [upload(b, 3, 20, gate), upload(b, 3, 20, up)];
      b.gatedActivation(g, g, u, "silu", { clamped, gateThreshold });
      const values = Float64Array.from(gate, (raw, i) => {
        const x = Math.min(raw, 7);
        const f = x / (1 + Math.exp(-1.702 * x));
        return Math.abs(f) < gateThreshold ? 0 : f * (Math.max(-7, Math.min(up[i], 7)) + 1);
      });
      expectWithin(await b.read(g), { values, bounds: values.map((v) => 2e-5 * Math.abs(v) + 1e-6) }, "clamped");
      b.release(g);
      b.release(u);
    }
  });

  it("gatedActivation: |f(gate)| equal to the threshold is kept (CATS drops only what is below)", async () => {
    const b = backend();
    const g = upload(b, 1, 4, Float32Array.of(0.2, -0.5, 0.5, 0.1));
    const u = upload(b, 1, 4, Float32Array.of(1, 1, 1, 1));
    b.gatedActivation(u, g, u, "relu", { gateThreshold: Math.fround(0.2) });
    expect([...(await b.read(u))].map((v) => v + 0)).toEqual([Math.fround(0.2), 0, 0.5, 0]);
    b.release(g);
    b.release(u);
  });

  it("add: sums of f32, exactly, into views too", async () => {
    const b = backend();
    const [x, y] = [normals(1, 5 * 20), normals(2, 5 * 20)];
    const xs = upload(b, 5, 20, x);
    const wide = b.allocate(5, 28);
    b.write(wide.columns(4, 20), y);
    b.add(wide.columns(4, 20), xs);
    expect(await b.read(wide.columns(4, 20))).toEqual(x.map((v, i) => v + y[i]));
    b.release(xs);
    b.release(wide);
  });

  it("topK: descending, ties by the lowest id, any k, one result for each row", async () => {
    const b = backend();
    for (const [n, cols] of [
      [1, 4],
      [1, 8192],
      [5, 100],
      [3, 300],
    ]) {
      // Few distinct values, so that ties are everywhere.
      const values = normals(cols, n * cols).map((v) => Math.round(v * 4) / 4);
      const wide = b.allocate(n, cols + 4);
      const x = wide.columns(4, cols);
      b.write(x, values);
      for (const k of [1, 2, Math.min(40, cols), cols]) {
        const results = await b.topK(x, k);
        expect(results.length).toBe(n);
        for (const [r, result] of results.entries()) {
          const row = values.subarray(r * cols, (r + 1) * cols);
          const ids = [...row.keys()].sort((i, j) => row[j] - row[i] || i - j).slice(0, k);
          expect([...result.ids], `${n} × ${cols}, k ${k}`).toEqual(ids);
          expect([...result.values]).toEqual(ids.map((id) => row[id]));
        }
      }
      b.release(wide);
    }
  });

  it("topK: all equal, all negative and −∞ values", async () => {
    const b = backend();
    const x = upload(b, 3, 8, new Float32Array(24).fill(-5));
    b.write(x.rowRange(1, 1), Float32Array.of(-8, -7, -6, -5, -4, -3, -2, -1));
    b.write(x.rowRange(2, 1), new Float32Array(8).fill(Number.NEGATIVE_INFINITY).fill(1, 6, 7));
    const [equal, rising, infinite] = await b.topK(x, 3);
    expect([...equal.ids]).toEqual([0, 1, 2]);
    expect([...rising.ids]).toEqual([7, 6, 5]);
    expect([...infinite.ids]).toEqual([6, 0, 1]);
    b.release(x);
  });
}
