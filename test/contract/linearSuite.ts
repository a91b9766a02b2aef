import { expect, it } from "vitest";
import { zeroCounters } from "../../src/kernels/counters.js";
import type { Backend } from "../../src/kernels/index.js";
import { isSparse, type PackedFormatId, sparseFormats, type WeightFormatId } from "../../src/pack/index.js";
import {
  type BackendUnderTest,
  columnsOf,
  expectWithin,
  type LoadedMatrix,
  linearTolerance,
  loadStack,
  normals,
  rowSource,
  upload,
} from "./harness.js";
import { once } from "./once.js";
import * as oracle from "./oracle.js";

/** Outputs × inputs; neither need be a multiple of 32. */
const shapes: readonly (readonly [number, number])[] = [
  [4, 4],
  [20, 100],
  [100, 20],
  [160, 96],
  [96, 300],
  [300, 160],
  [64, 64],
  [1100, 72],
];
const rowCounts = [1, 2, 3, 5, 17, 64, 130];

const codeBits: Readonly<Record<WeightFormatId, number>> = { f32: 32, bf16: 16, q8: 8, q4: 4 };
const scaleBytes: Readonly<Record<WeightFormatId, number>> = { f32: 0, bf16: 0, q8: 2, q4: 2 };

/** Inputs skipped and bytes read by a one-row sparse product. */
function expectedCounts(format: PackedFormatId, w: LoadedMatrix, c: oracle.LinearCase) {
  if (!isSparse(format))
    return oracle.sparseCounts(c, codeBits[format as WeightFormatId], scaleBytes[format as WeightFormatId]);
  const counts = oracle.sparseCounts(c, 0, 0);
  for (const [p, rows] of c.partRows.entries()) {
    const kept = (i: number) => Math.abs(c.x[i]) > Math.fround(c.thresholds![p]);
    counts.weightBytesRead += sparseFormats[format].bytesRead(w.bytes[p], rows, c.cols, kept);
  }
  return counts;
}

export function linearSuite(backend: () => Backend, { formats, tolerances }: BackendUnderTest): void {
  const bound = (format: PackedFormatId) => {
    const { relative, int8Activations } = linearTolerance(tolerances, format);
    return `|Δ| ≤ ${relative}·Σ|w·x|${int8Activations ? " + Σ max|x|/254·Σ|w| per 32 inputs" : ""} + 1e-6`;
  };

  for (const format of formats) {
    const tolerance = linearTolerance(tolerances, format);
    const title = (what: string) => `linear ${format}: ${what}, ${bound(format)}`;

    it(title("every shape with 1 to 130 rows"), async () => {
      const b = backend();
      for (const [outputs, cols] of shapes) {
        const w = await loadStack(b, format, [outputs], cols, outputs);
        for (const n of rowCounts) {
          const x = normals(n, n * cols);
          const xs = upload(b, n, cols, x);
          const out = b.allocate(n, outputs);
          b.linear(out, xs, w.handle);
          const expected = once(["every shape", format, outputs, cols, n, tolerance], () =>
            oracle.linear({ x, w: w.values, cols, partRows: [outputs] }, tolerance),
          );
          expectWithin(await b.read(out), expected, `${outputs} × ${cols}, ${n} rows`);
          b.release(xs);
          b.release(out);
        }
      }
    });

    it(title("thresholds per part of a stack, bias, accumulation, from any row on"), async () => {
      const b = backend();
      const partRows = [64, 20, 36];
      const thresholds = [0.3, 0.9, 0];
      const cols = 100;
      const w = await loadStack(b, format, partRows, cols, 5);
      const bias = normals(6, w.handle.rows);
      const biasVector = b.loadVector(bias);
      for (const n of [1, 2, 5, 40]) {
        const x = normals(n + 50, n * cols);
        const previous = normals(n + 60, n * w.handle.rows);
        const xs = upload(b, n, cols, x);
        for (const sparseFromRow of [undefined, 0, 1, Math.floor(n / 2), n + 3]) {
          const out = upload(b, n, w.handle.rows, previous);
          b.linear(out, xs, w.handle, { bias: biasVector, accumulate: true, thresholds, sparseFromRow });
          const expected = once(["thresholds per part", format, n, sparseFromRow ?? "none", tolerance], () =>
            oracle.linear({ x, w: w.values, cols, partRows, bias, previous, thresholds, sparseFromRow }, tolerance),
          );
          expectWithin(await b.read(out), expected, `${n} rows, sparse from row ${sparseFromRow}`);
          b.release(out);
        }
        b.release(xs);
      }
    });

    it(title("views as x and as out, whose surroundings stay as they were"), async () => {
      const b = backend();
      const [outputs, cols] = [20, 36];
      const w = await loadStack(b, format, [outputs], cols, 7);
      for (const n of [1, 3, 34]) {
        const x = normals(8, n * cols);
        const wide = upload(b, n + 2, cols + 8, normals(9, (n + 2) * (cols + 8)));
        const xs = wide.columns(4, cols).rowRange(1, n);
        b.write(xs, x);
        const before = normals(10, (n + 3) * (outputs + 12));
        const outWide = upload(b, n + 3, outputs + 12, before);
        b.linear(outWide.rowRange(2, n).columns(8, outputs), xs, w.handle);

        const after = await b.read(outWide);
        const inside = columnsOf(after, outputs + 12, 8, outputs).subarray(2 * outputs, (2 + n) * outputs);
        const expected = oracle.linear({ x, w: w.values, cols, partRows: [outputs] }, tolerance);
        expectWithin(inside, expected, `${n} rows`);
        for (let k = 0; k < after.length; k++) {
          const [row, column] = [Math.floor(k / (outputs + 12)), k % (outputs + 12)];
          const written = row >= 2 && row < 2 + n && column >= 8 && column < 8 + outputs;
          if (!written && after[k] !== before[k]) throw new Error(`${n} rows: (${row}, ${column}) was overwritten`);
        }
        b.release(wide);
        b.release(outWide);
      }
    });

    it(`linear ${format}: x of zeros, or with every input dropped, gives exactly the bias`, async () => {
      const b = backend();
      const w = await loadStack(b, format, [36], 100, 11);
      const bias = normals(12, 36);
      const options = { bias: b.loadVector(bias) };
      for (const n of [1, 3, 33]) {
        const zeros = upload(b, n, 100, new Float32Array(n * 100));
        const small = upload(b, n, 100, normals(13, n * 100, 0.01));
        const out = b.allocate(n, 36);
        const biasRows = Float32Array.from({ length: n * 36 }, (_, i) => bias[i % 36]);
        b.linear(out, zeros, w.handle, options);
        expect(await b.read(out)).toEqual(biasRows);
        b.linear(out, zeros, w.handle, { ...options, thresholds: [0] });
        expect(await b.read(out)).toEqual(biasRows);
        b.linear(out, small, w.handle, { ...options, thresholds: [1] });
        expect(await b.read(out)).toEqual(biasRows);
        for (const activation of [zeros, small, out]) b.release(activation);
      }
    });

    it(`linear ${format}: |x| equal to the threshold is dropped, the next f32 above is kept`, async () => {
      const b = backend();
      const cols = 40;
      const w = await loadStack(b, format, [36], cols, 14);
      const t = Math.fround(0.3);
      const above = Math.fround(t * (1 + 2 ** -23));
      for (const n of [1, 2, 36]) {
        for (const at of [0, 7, 31, 32, 39]) {
          for (const [value, kept] of [
            [t, false],
            [-t, false],
            [above, true],
            [-above, true],
          ] as const) {
            const x = new Float32Array(n * cols);
            for (let r = 0; r < n; r++) x[r * cols + at] = value;
            const xs = upload(b, n, cols, x);
            const out = b.allocate(n, 36);
            b.linear(out, xs, w.handle, { thresholds: [t] });
            const result = await b.read(out);
            expect(
              result.some((v) => v !== 0),
              `input ${at} = ${value}, ${n} rows`,
            ).toBe(kept);
            b.release(xs);
            b.release(out);
          }
        }
      }
    });

    it(`linear ${format}: counters of dense, sparse and many-row products, exactly`, async () => {
      const b = backend();
      const partRows = [64, 20];
      const cols = 100;
      const w = await loadStack(b, format, partRows, cols, 15);
      expect(w.handle.byteLength).toBe(w.bytes[0].byteLength + w.bytes[1].byteLength);
      const one = normals(16, cols).map((v, i) => (i >= 32 && i < 64 ? 0 : v));
      const xs = upload(b, 1, cols, one);
      const many = upload(b, 3, cols, normals(17, 3 * cols));
      const out = b.allocate(1, 84);
      const outMany = b.allocate(3, 84);
      const take = async (run: () => void) => {
        await b.flush();
        b.takeCounters();
        run();
        await b.flush();
        return b.takeCounters();
      };

      const dense = { ...zeroCounters(), weightBytesRead: w.handle.byteLength };
      expect(await take(() => b.linear(out, xs, w.handle))).toEqual(dense);
      expect(await take(() => b.linear(out, xs, w.handle, { thresholds: [1, 1], sparseFromRow: 1 }))).toEqual(dense);
      expect(await take(() => b.linear(outMany, many, w.handle, { thresholds: [1, 1] }))).toEqual(dense);
      for (const thresholds of [
        [0, 0],
        [0.5, 0],
        [0.2, 1.5],
        [100, 100],
      ]) {
        const counts = expectedCounts(format, w, { x: one, w: w.values, cols, partRows, thresholds });
        expect(await take(() => b.linear(out, xs, w.handle, { thresholds })), `${thresholds}`).toEqual(counts);
      }
      expect(b.takeCounters()).toEqual(zeroCounters());
      for (const activation of [xs, many, out, outMany]) b.release(activation);
    });
  }

  if (formats.includes("int8-mixed")) {
    it("linear int8-mixed: inputs of magnitude 6 and more cost the others no precision, found for every row of x", async () => {
      const b = backend();
      const [outputs, cols] = [100, 200];
      const w = await loadStack(b, "int8-mixed", [outputs], cols, 30);
      const tolerance = linearTolerance(tolerances, "int8-mixed");
      for (const n of [1, 5, 40]) {
        const x = normals(31, n * cols).map((v, i) =>
          i % 67 === 3 ? 60 + v : i % 89 === 0 ? -6 : Math.max(-3, Math.min(3, v)),
        );
        for (const thresholds of [undefined, [0.5], [59]]) {
          const xs = upload(b, n, cols, x);
          const out = b.allocate(n, outputs);
          b.linear(out, xs, w.handle, { thresholds });
          const expected = oracle.linear({ x, w: w.values, cols, partRows: [outputs], thresholds }, tolerance);
          expectWithin(await b.read(out), expected, `${n} rows, thresholds ${thresholds}`);
          b.release(xs);
          b.release(out);
        }
      }
    });
  }

  it("linear: a part of a stack gives what it gives alone, within the rounding of its sums", async () => {
    const b = backend();
    const cols = 96;
    const stack = await loadStack(b, "f32", [32, 20, 44], cols, 18);
    const x = normals(19, 5 * cols);
    const xs = upload(b, 5, cols, x);
    const whole = b.allocate(5, 96);
    b.linear(whole, xs, stack.handle);
    for (const part of stack.handle.parts) {
      const values = stack.values.slice(part.rowStart * cols, (part.rowStart + part.rows) * cols);
      const alone = await b.loadMatrix([rowSource(part.name, values, part.rows, cols)], "f32");
      const out = b.allocate(5, part.rows);
      b.linear(out, xs, alone);
      const inStack = await b.read(whole.columns(part.rowStart, part.rows));
      const expected = oracle.linear({ x, w: values, cols, partRows: [part.rows] }, tolerances.linear.f32);
      expectWithin(inStack, { values: Float64Array.from(await b.read(out)), bounds: expected.bounds }, part.name);
      b.release(out);
    }
    b.release(xs);
    b.release(whole);
  });

  it("linear: the same operands give the same bits again", async () => {
    const b = backend();
    for (const format of formats) {
      const w = await loadStack(b, format, [300], 160, 20);
      for (const n of [1, 7]) {
        const xs = upload(b, n, 160, normals(21, n * 160));
        const out = b.allocate(n, 300);
        b.linear(out, xs, w.handle, { thresholds: [0.4] });
        const first = await b.read(out);
        b.linear(out, xs, w.handle, { thresholds: [0.4] });
        expect(await b.read(out)).toEqual(first);
        b.release(xs);
        b.release(out);
      }
    }
  });
}
