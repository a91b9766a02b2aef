import fc from "fast-check";
import { expect, it } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { zeroCounters } from "../../src/kernels/counters.js";
import type { Backend, ExpertMatrices } from "../../src/kernels/index.js";
import { isSparse, type PackedFormatId } from "../../src/pack/index.js";
import {
  type BackendUnderTest,
  expectWithin,
  linearTolerance,
  normals,
  packed,
  rowSource,
  thinned,
  upload,
} from "./harness.js";
import * as oracle from "./oracle.js";

interface LoadedExperts {
  handle: ExpertMatrices;
  /** f32 [rows, cols] of each expert. */
  values: Float32Array[];
}

async function loadExperts(
  b: Backend,
  format: PackedFormatId,
  experts: number,
  partRows: readonly number[],
  cols: number,
): Promise<LoadedExperts> {
  const stored = Array.from({ length: experts }, (_, e) =>
    partRows.map((rows, p) => thinned(format, normals(e * 31 + p, rows * cols, 0.5), cols, e + p)),
  );
  const sources = stored.map((parts, e) =>
    parts.map((values, p) => rowSource(`expert ${e} part ${p}`, values, partRows[p], cols)),
  );
  const handle = await b.loadExperts(sources, format);
  const values = stored.map((parts) => {
    const all = parts.map((part, p) => packed(format, part, partRows[p], cols).values);
    return Float32Array.from(all.flatMap((part) => [...part]));
  });
  return { handle, values };
}

/** `Backend.route` in f64: experts and weights of a row, the largest first. */
function chosen(row: ArrayLike<number>, perRow: number, normalise: boolean): Map<number, number> {
  const order = Array.from({ length: row.length }, (_, e) => e).sort((a, b) => row[b] - row[a] || a - b);
  const sizes = order.map((e) => Math.exp(row[e] - row[order[0]]));
  const total = sizes.slice(0, normalise ? perRow : undefined).reduce((a, b) => a + b);
  return new Map(order.slice(0, perRow).map((e, k) => [e, sizes[k] / total]));
}

async function routed(
  b: Backend,
  logits: Float32Array,
  rows: number,
  experts: number,
  perRow: number,
  normalise = true,
) {
  const cols = logits.length / rows;
  const xs = upload(b, rows, cols, logits);
  const routing = await b.route(xs, { experts, perRow, normalise });
  b.release(xs);
  return routing;
}

/** Mixtures of experts: routing, products of the chosen, weighted sums. */
export function expertSuite(backend: () => Backend, { formats, tolerances }: BackendUnderTest): void {
  it("route: the experts and weights of every row, each row's slots once, slots of an expert together", async () => {
    const b = backend();
    for (const [rows, experts, perRow, normalise] of [
      [1, 8, 2, true],
      [1, 8, 2, false],
      [1, 3, 3, true],
      [1, 1, 1, true],
      [1, 130, 7, true],
      [7, 8, 2, true],
      [64, 5, 3, false],
    ] as const) {
      const cols = Math.ceil(experts / 4) * 4 + 4;
      // Few distinct values, so that there are ties; columns beyond the experts would win.
      const logits = normals(rows + experts, rows * cols, 2).map((v, i) =>
        i % cols >= experts ? 99 : Math.round(v * 4) / 4,
      );
      const routing = await routed(b, logits, rows, experts, perRow, normalise);
      const slots = await b.readRouting(routing);
      const what = `${rows} rows, ${perRow} of ${experts}`;
      expect([routing.rows, routing.perRow, slots.rows.length], what).toEqual([rows, perRow, rows * perRow]);
      const found = Array.from({ length: rows }, () => new Map<number, number>());
      for (const [s, row] of slots.rows.entries()) found[row].set(slots.experts[s], slots.weights[s]);
      for (let r = 0; r < rows; r++) {
        const expected = chosen(logits.subarray(r * cols, r * cols + experts), perRow, normalise);
        expect([...found[r].keys()].sort(), what).toEqual([...expected.keys()].sort());
        for (const [expert, weight] of expected) expect(Math.abs(found[r].get(expert)! - weight)).toBeLessThan(1e-6);
      }
      const seen = new Set<number>();
      for (const [s, expert] of slots.experts.entries()) {
        const before = s > 0 ? slots.experts[s - 1] : -1;
        expect(expert === before || !seen.has(expert), `${what}: slots of expert ${expert}`).toBe(true);
        if (expert === before) expect(slots.rows[s]).toBeGreaterThan(slots.rows[s - 1]);
        seen.add(expert);
      }
    }
  });

  it("route: infinite and NaN logits choose distinct experts, with weights that add up to 1, or all NaN where a logit is", async () => {
    const b = backend();
    const logit = fc.oneof(
      fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, -0, 3.4e38, -3.4e38),
      fc.float({ noNaN: true }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(logit, { minLength: 24, maxLength: 24 }),
        fc.integer({ min: 1, max: 8 }),
        async (rows, values, perRow) => {
          const logits = Float32Array.from(values.slice(0, rows * 8));
          const slots = await b.readRouting(await routed(b, logits, rows, 8, perRow));
          for (let r = 0; r < rows; r++) {
            const own = [...slots.rows.keys()].filter((s) => slots.rows[s] === r);
            const experts = new Set(own.map((s) => slots.experts[s]));
            expect(experts.size).toBe(perRow);
            expect(Math.max(...experts)).toBeLessThan(8);
            const total = own.reduce((sum, s) => sum + slots.weights[s], 0);
            if (logits.subarray(r * 8, (r + 1) * 8).some(Number.isNaN)) {
              expect(own.every((s) => Number.isNaN(slots.weights[s]))).toBe(true);
            } else expect(Math.abs(total - 1)).toBeLessThan(1e-5);
          }
        },
      ),
      { numRuns: 20 },
    );
  });

  // Before formats without kernels that choose: from then on the host does.
  it("expertLinear counts the matrices of the chosen only, and what thresholds leave unread", async () => {
    const b = backend();
    const [experts, cols, rows] = [8, 96, 64];
    const w = await loadExperts(b, "bf16", experts, [rows], cols);
    const x = normals(1, cols);
    const xs = upload(b, 1, cols, x);
    const out = b.allocate(2, rows);
    const routing = await routed(b, normals(2, 8), 1, experts, 2);
    await b.flush();
    b.takeCounters();
    b.expertLinear(out, xs, w.handle, routing, { from: "rows" });
    await b.flush();
    expect(b.takeCounters()).toEqual({ ...zeroCounters(), weightBytesRead: 2 * rows * cols * 2 });
    b.expertLinear(out, xs, w.handle, routing, { from: "rows", thresholds: [0.5] });
    await b.flush();
    const kept = x.filter((v) => Math.abs(v) > 0.5).length;
    expect(b.takeCounters()).toEqual({
      kvBytesRead: 0,
      weightBytesRead: 2 * kept * rows * 2,
      inputs: 2 * cols,
      inputsSkipped: 2 * (cols - kept),
    });
    expect(w.handle.byteLength).toBe(experts * rows * cols * 2);
    b.release(xs);
    b.release(out);
  });

  it("addExperts: the weighted sum of each row's slots, added to what is there, into views too", async () => {
    const b = backend();
    for (const [rows, perRow] of [
      [1, 2],
      [5, 1],
      [70, 3],
    ]) {
      const routing = await routed(b, normals(rows, rows * 8), rows, 6, perRow);
      const slots = await b.readRouting(routing);
      const [x, before] = [normals(3, rows * perRow * 20), normals(4, rows * 20)];
      const xs = upload(b, rows * perRow, 20, x);
      const wide = b.allocate(rows, 28);
      const out = wide.columns(4, 20);
      b.write(out, before);
      b.addExperts(out, xs, routing);
      const values = Float64Array.from(before);
      const bounds = new Float64Array(values.length).fill(1e-5);
      for (const [s, row] of slots.rows.entries()) {
        for (let c = 0; c < 20; c++) values[row * 20 + c] += slots.weights[s] * x[s * 20 + c];
      }
      expectWithin(await b.read(out), { values, bounds }, `${rows} × ${perRow}`);
      b.release(xs);
      b.release(wide);
    }
  });

  for (const format of formats) {
    const tolerance = linearTolerance(tolerances, format);

    it(`expertLinear ${format}: from rows and from slots, with and without thresholds`, async () => {
      const b = backend();
      for (const [experts, partRows, cols] of [
        [5, [36, 20], 100],
        [3, [300], 72],
      ] as const) {
        const w = await loadExperts(b, format, experts, partRows, cols);
        const outputs = w.handle.rows;
        for (const [rows, perRow] of [
          [1, 1],
          [1, 2],
          [6, 2],
          [40, 3],
        ]) {
          const logits = normals(rows, rows * 8);
          const routing = await routed(b, logits, rows, experts, perRow);
          const slots = await b.readRouting(routing);
          for (const from of ["rows", "slots"] as const) {
            const n = from === "rows" ? rows : rows * perRow;
            const x = normals(n + 2, n * cols);
            const xs = upload(b, n, cols, x);
            for (const thresholds of [undefined, partRows.map((_, p) => 0.3 + p)]) {
              const out = b.allocate(rows * perRow, outputs);
              b.expertLinear(out, xs, w.handle, routing, { from, thresholds });
              const result = await b.read(out);
              for (const [s, expert] of slots.experts.entries()) {
                const row = from === "rows" ? slots.rows[s] : s;
                const input = x.subarray(row * cols, (row + 1) * cols);
                const c = { x: input, w: w.values[expert], cols, partRows, thresholds };
                const what = `${rows} × ${perRow} of ${experts} from ${from}, thresholds ${thresholds}, slot ${s}`;
                expectWithin(result.subarray(s * outputs, (s + 1) * outputs), oracle.linear(c, tolerance), what);
              }
              b.release(out);
            }
            b.release(xs);
          }
        }
      }
    });
  }

  it("experts: wrong shapes and choices are refused by name", async () => {
    const b = backend();
    const source = (rows: number) => [rowSource("one", normals(1, rows * 8), rows, 8)];
    await expect(b.loadExperts([source(4), source(8)], "f32")).rejects.toThrow(UsageError);
    await expect(b.loadExperts([], "f32")).rejects.toThrow(UsageError);
    const logits = upload(b, 1, 4, normals(1, 4));
    for (const [experts, perRow] of [
      [4, 5],
      [8, 2],
      [4, 0],
      [0, 0],
      [3.5, 1],
    ]) {
      await expect(b.route(logits, { experts, perRow, normalise: true })).rejects.toThrow("route");
    }
    const w = await b.loadExperts([source(4), source(4)], "f32");
    const routing = await b.route(logits, { experts: 2, perRow: 2, normalise: true });
    const [x, out] = [b.allocate(1, 8), b.allocate(2, 4)];
    expect(() => b.expertLinear(out, x, w, routing, { from: "slots" })).toThrow("expertLinear");
    expect(() => b.expertLinear(out, x, w, routing, { from: "rows", thresholds: [1, 2] })).toThrow("expertLinear");
    expect(() => b.addExperts(x, out, routing)).toThrow("addExperts");
    for (const activation of [logits, x, out]) b.release(activation);
  });

  const sparse = formats.find(isSparse);
  it.skipIf(sparse === undefined)("experts of a format without kernels that choose: the host chooses", async () => {
    const b = backend();
    await loadExperts(b, sparse!, 2, [32], 32);
    const logits = normals(9, 8);
    const slots = await b.readRouting(await routed(b, logits, 1, 8, 2));
    expect([...slots.experts].sort()).toEqual([...chosen(logits, 2, true).keys()].sort());
  });
}
