import { expect, it } from "vitest";
import type { ActivationFunction } from "../../src/core/index.js";
import type { Backend } from "../../src/kernels/index.js";
import { type BackendUnderTest, linearTolerance, loadStack, normals, upload } from "./harness.js";

/** Operations that are several others at once, of a backend that has them, give what those give. */
export function fusedSuite(backend: () => Backend, { formats, tolerances }: BackendUnderTest): void {
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

  it("ropeAppendKv: what rope and appendKv give", async () => {
    const b = backend();
    const positions = 40;
    for (const { queryHeads, kvHeads, headDim, rows, start } of [
      { queryHeads: 4, kvHeads: 2, headDim: 16, rows: 1, start: 30 },
      { queryHeads: 6, kvHeads: 1, headDim: 20, rows: 7, start: 5 },
      { queryHeads: 8, kvHeads: 8, headDim: 64, rows: 33, start: 0 },
    ]) {
      const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
      const width = queryWidth + 2 * kvWidth;
      const angles = normals(headDim, (positions * headDim) / 2);
      const table = b.loadRope(angles.map(Math.cos), angles.map(Math.sin), headDim);
      const values = normals(rows, rows * width);
      const results: Float32Array[] = [];
      for (const fused of [true, false]) {
        using cache = b.createKvCache({ layers: 2, kvHeads, headDim, capacity: positions });
        const earlier = upload(b, start || 1, kvWidth, normals(7, (start || 1) * kvWidth));
        b.appendKv(cache, 1, earlier, earlier, 0);
        const qkv = upload(b, rows, width, values);
        const q = qkv.columns(0, queryWidth);
        const [k, v] = [qkv.columns(queryWidth, kvWidth), qkv.columns(queryWidth + kvWidth, kvWidth)];
        if (fused) b.ropeAppendKv!(q, k, v, table, cache, 1, start);
        else {
          b.rope(q, table, start);
          b.rope(k, table, start);
          b.appendKv(cache, 1, k, v, start);
        }
        const out = b.allocate(rows, queryWidth);
        b.attention(out, q, cache, 1, { queryHeads, scale: 1 / Math.sqrt(headDim), start });
        results.push(await b.read(q), await b.read(out));
        for (const activation of [earlier, qkv, out]) b.release(activation);
      }
      expect(results[0]).toEqual(results[2]);
      expect(results[1]).toEqual(results[3]);
    }
  });
}
