import fc from "fast-check";
import { expect, it } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { zeroCounters } from "../../src/kernels/counters.js";
import type { Backend, ExpertMatrices, RouteOptions } from "../../src/kernels/index.js";
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
  biases?: Float32Array[];
}

async function loadExperts(
  b: Backend,
  format: PackedFormatId,
  experts: number,
  partRows: readonly number[],
  cols: number,
  biased = false,
): Promise<LoadedExperts> {
  const stored = Array.from({ length: experts }, (_, e) =>
    partRows.map((rows, p) => thinned(format, normals(e * 31 + p, rows * cols, 0.5), cols, e + p)),
  );
  const sources = stored.map((parts, e) =>
    parts.map((values, p) => rowSource(`expert ${e} part ${p}`, values, partRows[p], cols)),
  );
  const outputs = partRows.reduce((sum, rows) => sum + rows, 0);
  const biases = biased ? Array.from({ length: experts }, (_, e) => normals(90 + e, outputs)) : undefined;
  const handle = await b.loadExperts(sources, format, { biases });
  const values = stored.map((parts) => {
    const all = parts.map((part, p) => packed(format, part, partRows[p], cols).values);
    return Float32Array.from(all.flatMap((part) => [...part]));
  });
  return { handle, values, biases };
}

/** `Backend.route` in f64: experts and weights of a row, the largest first. */
function chosen(row: ArrayLike<number>, options: Omit<RouteOptions, "experts">): Map<number, number> {
  const { perRow, score, choiceBias, groups, uniform, normalise, factor = 1 } = options;
  const logits = Array.from(row);
  const total = logits.reduce((sum, v) => sum + Math.exp(v), 0);
  const scoreOf = {
    softmax: (v: number) => Math.exp(v) / total,
    sigmoid: (v: number) => 1 / (1 + Math.exp(-v)),
    relu: (v: number) => Math.max(0, v),
  };
  const s = logits.map(scoreOf[score]);
  const z = s.map((v, e) => v + (choiceBias?.[e] ?? 0));
  let open = [...z.keys()];
  if (groups !== undefined) {
    const size = z.length / groups.count;
    const best = Array.from({ length: groups.count }, (_, g) =>
      z
        .slice(g * size, (g + 1) * size)
        .sort((a, b) => b - a)
        .slice(0, 2)
        .reduce((a, b) => a + b),
    );
    const kept = [...best.keys()].sort((a, b) => best[b] - best[a] || a - b).slice(0, groups.kept);
    open = open.filter((e) => kept.includes(Math.floor(e / size)));
  }
  const taken = open
    .sort((a, b) => z[b] - z[a] || a - b)
    .slice(0, perRow)
    .filter((e) => score !== "relu" || s[e] > 0);
  const sum = taken.reduce((all, e) => all + s[e], 0);
  return new Map(taken.map((e) => [e, factor * (uniform ? 1 / taken.length : s[e] / (normalise ? sum : 1))]));
}

async function routed(
  b: Backend,
  logits: Float32Array,
  rows: number,
  experts: number,
  perRow: number,
  options: Partial<RouteOptions> = {},
) {
  const cols = logits.length / rows;
  const xs = upload(b, rows, cols, logits);
  const routing = await b.route(xs, { experts, perRow, score: "softmax", normalise: true, ...options });
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
      const routing = await routed(b, logits, rows, experts, perRow, { normalise });
      const slots = await b.readRouting(routing);
      const what = `${rows} rows, ${perRow} of ${experts}`;
      expect([routing.rows, routing.perRow, slots.rows.length], what).toEqual([rows, perRow, rows * perRow]);
      const found = Array.from({ length: rows }, () => new Map<number, number>());
      for (const [s, row] of slots.rows.entries()) found[row].set(slots.experts[s], slots.weights[s]);
      for (let r = 0; r < rows; r++) {
        const expected = chosen(logits.subarray(r * cols, r * cols + experts), { perRow, score: "softmax", normalise });
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

  it("route: every kind of score, bias, group and weight, for one row and for several", async () => {
    const b = backend();
    const bias = normals(5, 16, 0.4);
    const kinds: Omit<RouteOptions, "experts" | "perRow">[] = [
      { score: "softmax", normalise: false, factor: 2.5 },
      { score: "softmax", normalise: true, uniform: true },
      { score: "softmax", normalise: false, choiceBias: bias },
      { score: "softmax", normalise: true, groups: { count: 4, kept: 2 } },
      { score: "sigmoid", normalise: true },
      { score: "sigmoid", normalise: false, choiceBias: bias },
      { score: "sigmoid", normalise: true, choiceBias: bias, groups: { count: 4, kept: 2 }, factor: 2.5 },
      { score: "sigmoid", normalise: true, choiceBias: bias, groups: { count: 16, kept: 5 } },
      { score: "sigmoid", normalise: true, choiceBias: bias, groups: { count: 1, kept: 1 } },
      { score: "relu", normalise: false },
      { score: "relu", normalise: true, factor: 0.5 },
    ];
    for (const kind of kinds) {
      for (const [rows, perRow] of [
        [1, 3],
        [9, 3],
        [1, 5],
        [6, kind.score === "relu" ? 16 : 4],
      ]) {
        const logits = normals(rows * 7 + perRow, rows * 16, 1.5);
        const routing = await routed(b, logits, rows, 16, perRow, kind);
        const slots = await b.readRouting(routing);
        expect(routing.slotCount).toBe(slots.rows.length);
        const found = Array.from({ length: rows }, () => new Map<number, number>());
        for (const [s, row] of slots.rows.entries()) found[row].set(slots.experts[s], slots.weights[s]);
        for (let r = 0; r < rows; r++) {
          const expected = chosen(logits.subarray(r * 16, (r + 1) * 16), { ...kind, perRow });
          const what = `${JSON.stringify(kind)}, row ${r} of ${rows}`;
          expect([...found[r].keys()].sort(), what).toEqual([...expected.keys()].sort());
          for (const [e, weight] of expected) expect(Math.abs(found[r].get(e)! - weight), what).toBeLessThan(2e-6);
        }
      }
    }
  });

  it("route: DeepSeek-V3's groups keep out the expert with the best score of all", async () => {
    const b = backend();
    const logitOf = (s: number) => Math.log(s / (1 - s));
    const logits = Float32Array.from([0.9, 0.1, 0.6, 0.5, 0.2, 0.3, 0.8, 0.05], logitOf);
    const options: Partial<RouteOptions> = {
      score: "sigmoid",
      choiceBias: Float32Array.of(0, 0, 0, 0, 0, 0.7, 0, 0),
      groups: { count: 4, kept: 2 },
      factor: 2.5,
    };
    const { experts, weights } = await b.readRouting(await routed(b, logits, 1, 8, 2, options));
    const found = new Map(Array.from(experts, (e, s) => [e, weights[s]]));
    expect(found.get(5)).toBeCloseTo(0.8333, 4);
    expect(found.get(2)).toBeCloseTo(1.6667, 4);
  });

  it("experts with ReLU: rows with many experts, few and none, and with biases", async () => {
    const b = backend();
    const w = await loadExperts(b, "f32", 4, [12], 8, true);
    const logits = Float32Array.of(1, -1, 2, 0.5, -1, -1, -1, -1, -1, 3, -1, -1);
    const routing = await routed(b, logits, 3, 4, 4, { score: "relu", normalise: false });
    expect([routing.slotCount, routing.perRow]).toEqual([4, 3]);
    const x = normals(6, 3 * 8);
    const [xs, out, sums] = [upload(b, 3, 8, x), b.allocate(4, 12), upload(b, 3, 12, new Float32Array(36))];
    b.expertLinear(out, xs, w.handle, routing, { from: "rows" });
    b.addExperts(sums, out, routing);
    const values = new Float64Array(36);
    for (let r = 0; r < 3; r++) {
      for (let e = 0; e < 4; e++) {
        const gate = Math.max(0, logits[r * 4 + e]);
        for (let o = 0; o < 12; o++) {
          let y = w.biases![e][o];
          for (let i = 0; i < 8; i++) y += w.values[e][o * 8 + i] * x[r * 8 + i];
          values[r * 12 + o] += gate * y;
        }
      }
    }
    expectWithin(await b.read(sums), { values, bounds: new Float64Array(36).fill(1e-4) }, "ReLU");
    const none = await routed(b, Float32Array.of(-1, -2, -3, 0), 1, 4, 4, { score: "relu", normalise: false });
    expect(none.slotCount).toBe(0);
    for (const activation of [xs, out, sums]) b.release(activation);
  });

  it("expertLinear adds the bias of each slot's expert, for one row and for several", async () => {
    const b = backend();
    const w = await loadExperts(b, "bf16", 4, [8, 4], 8, true);
    for (const rows of [1, 5]) {
      const routing = await routed(b, normals(rows, rows * 4), rows, 4, 2);
      const slots = await b.readRouting(routing);
      const xs = upload(b, rows, 8, new Float32Array(rows * 8));
      const out = b.allocate(rows * 2, 12);
      b.expertLinear(out, xs, w.handle, routing, { from: "rows" });
      const result = await b.read(out);
      for (const [s, e] of slots.experts.entries())
        expect([...result.subarray(s * 12, (s + 1) * 12)]).toEqual([...w.biases![e]]);
      b.release(xs);
      b.release(out);
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
      await expect(b.route(logits, { experts, perRow, score: "softmax", normalise: true })).rejects.toThrow("route");
    }
    for (const wrong of [
      { choiceBias: new Float32Array(3) },
      { groups: { count: 3, kept: 1 } },
      { groups: { count: 4, kept: 1 } },
    ]) {
      const options = { experts: 4, perRow: 2, score: "sigmoid", normalise: true, ...wrong } as const;
      await expect(b.route(logits, options)).rejects.toThrow("route");
    }
    const biases = [new Float32Array(4)];
    await expect(b.loadExperts([source(4), source(4)], "f32", { biases })).rejects.toThrow("biases");
    const w = await b.loadExperts([source(4), source(4)], "f32");
    const routing = await b.route(logits, { experts: 2, perRow: 2, score: "softmax", normalise: true });
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
    expect([...slots.experts].sort()).toEqual(
      [...chosen(logits, { perRow: 2, score: "softmax", normalise: true }).keys()].sort(),
    );
  });
}
