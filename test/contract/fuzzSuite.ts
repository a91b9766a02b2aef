import fc from "fast-check";
import { it } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import {
  type BackendUnderTest,
  expectWithin,
  kvSpec,
  linearTolerance,
  loadStack,
  normals,
  upload,
  windowSight,
} from "./harness.js";
import { once } from "./once.js";
import * as oracle from "./oracle.js";

const fours = (max: number) => fc.integer({ min: 1, max: max / 4 }).map((n) => 4 * n);
const parameters = (numRuns: number) => ({ numRuns, seed: 20260, endOnFailure: false });

/** Random shapes of `linear`, unless a subject asks for fewer; attention is tried on a third of them. */
const defaultShapes = 150;

/** Random shapes and options against the oracle. */
export function fuzzSuite(
  backend: () => Backend,
  { formats, tolerances, randomShapes = defaultShapes }: BackendUnderTest,
): void {
  it(`linear: ${randomShapes} random shapes, stacks, thresholds, formats and options within the bounds above`, async () => {
    const cases = fc.record({
      format: fc.constantFrom(...formats),
      partRows: fc.array(fc.oneof(fours(100), fc.constant(600)), { minLength: 1, maxLength: 3 }),
      cols: fours(200),
      n: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 40 })),
      sparse: fc.boolean(),
      sparseFromRow: fc.option(fc.nat(20), { nil: undefined }),
      bias: fc.boolean(),
      accumulate: fc.boolean(),
      zeroShare: fc.constantFrom(0, 0.5, 0.95, 1),
      seed: fc.nat(2 ** 20),
    });
    await fc.assert(
      fc.asyncProperty(cases, async (c) => {
        const b = backend();
        const w = await loadStack(b, c.format, c.partRows, c.cols, c.seed);
        const outputs = w.handle.rows;
        const dropped = normals(c.seed + 1, c.n * c.cols);
        const x = normals(c.seed + 2, c.n * c.cols).map((v, i) => (uniformOf(dropped[i]) < c.zeroShare ? 0 : v));
        const previous = normals(c.seed + 3, c.n * outputs);
        const bias = c.bias ? normals(c.seed + 4, outputs) : undefined;
        const thresholds = c.sparse ? c.partRows.map((_, p) => [0, 0.7, 1.5][(c.seed + p) % 3]) : undefined;
        const xs = upload(b, c.n, c.cols, x);
        const out = upload(b, c.n, outputs, previous);
        b.linear(out, xs, w.handle, {
          bias: bias && b.loadVector(bias),
          accumulate: c.accumulate,
          thresholds,
          sparseFromRow: c.sparseFromRow,
        });
        const tolerance = linearTolerance(tolerances, c.format);
        const expected = once(["random shapes", c, tolerance], () =>
          oracle.linear(
            { ...c, x, w: w.values, bias, thresholds, previous: c.accumulate ? previous : undefined },
            tolerance,
          ),
        );
        expectWithin(await b.read(out), expected, "linear");
        b.release(xs);
        b.release(out);
      }),
      parameters(randomShapes),
    );
  });

  const layouts = Math.ceil(randomShapes / 3);
  it(`attention: ${layouts} random head layouts, windows and splits of a sequence within the bound above`, async () => {
    const cases = fc.record({
      kvHeads: fc.integer({ min: 1, max: 4 }),
      queriesPerKv: fc.integer({ min: 1, max: 4 }),
      headDim: fours(48),
      chunks: fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 4 }),
      window: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined }),
      seed: fc.nat(2 ** 20),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ kvHeads, queriesPerKv, headDim, chunks, window, seed }) => {
        const b = backend();
        const queryHeads = kvHeads * queriesPerKv;
        const length = chunks.reduce((a, c) => a + c, 0);
        const scale = 1 / Math.sqrt(headDim);
        const q = normals(seed, length * queryHeads * headDim);
        const keys = normals(seed + 1, length * kvHeads * headDim);
        const values = normals(seed + 2, length * kvHeads * headDim);
        using cache = b.createKvCache(kvSpec(1, kvHeads, headDim, length));
        const qs = upload(b, length, queryHeads * headDim, q);
        const ks = upload(b, length, kvHeads * headDim, keys);
        const vs = upload(b, length, kvHeads * headDim, values);
        const out = b.allocate(length, queryHeads * headDim);
        using sight = windowSight(b, window);
        let start = 0;
        for (const rows of chunks) {
          b.appendKv(cache, 0, ks.rowRange(start, rows), vs.rowRange(start, rows), start);
          b.attention(out.rowRange(start, rows), qs.rowRange(start, rows), cache, 0, {
            queryHeads,
            scale,
            start,
            sight,
          });
          start += rows;
        }
        const expected = oracle.attention(
          { q, keys, values, queryHeads, kvHeads, headDim, scale, start: 0, window },
          tolerances.attention,
        );
        expectWithin(await b.read(out), expected, "attention");
        for (const activation of [qs, ks, vs, out]) b.release(activation);
      }),
      parameters(layouts),
    );
  });
}

/** Maps a standard normal to about uniform (0, 1). */
const uniformOf = (normal: number) => 1 / (1 + Math.exp(-1.702 * normal));
