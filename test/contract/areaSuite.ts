import { expect, it } from "vitest";
import {
  type Backend,
  packedRowsOf,
  placesBytes,
  type ScatteredColumns,
  scalesBytes,
  sumsBytes,
} from "../../src/kernels/index.js";
import { packAs, packRows, padded, rowBytes, weightFormats } from "../../src/pack/index.js";
import { denseFormats, normals, rowSource, upload } from "./harness.js";

const bits = (values: Float32Array) => [...new Uint32Array(values.buffer, values.byteOffset, values.length)];
const align = (bytes: number) => Math.ceil(bytes / 64) * 64;

/** 0 … count − 1 in another order. */
const permutation = (seed: number, count: number): number[] => {
  const keys = normals(seed, count);
  return [...keys.keys()].sort((a, b) => keys[a] - keys[b]);
};

/** f32 [packed rows, cols]: parts one behind the other, each padded. */
function stacked(parts: readonly { rows: number; values: Float32Array }[], cols: number): Float32Array {
  const out = new Float32Array(packedRowsOf(parts) * cols);
  let row = 0;
  for (const { rows, values } of parts) {
    out.set(values, row * cols);
    row += padded(rows);
  }
  return out;
}

/** Weights that lie one by one anywhere multiply to the bits of the same weights in one piece. */
export function areaSuite(backend: () => Backend): void {
  it.each(denseFormats)("weights in an area: scattered columns in %s give the bits of a matrix", async (format) => {
    const b = backend();
    if (b.openArea === undefined) return;
    for (const [seed, cols, rows] of [
      [1, 68, [40]],
      [2, 256, [96, 36]],
      [3, 388, [300]],
    ] as const) {
      const parts = rows.map((count, p) => ({
        name: `part ${p}`,
        rows: count,
        values: normals(seed + p, count * cols, 0.1),
      }));
      using region = b.openRegion({ weightBytes: 1 << 20 });
      const matrix = await region.loadMatrix(
        parts.map(({ name, rows: count, values }) => rowSource(name, values, count, cols)),
        format,
      );
      const bias = region.loadVector(normals(seed + 9, matrix.rows));
      const packed = packAs(format, stacked(parts, cols), packedRowsOf(parts), cols);
      const { columnBytes, groupScaleBytes } = weightFormats[format];
      const [column, scale] = [columnBytes(packedRowsOf(parts)), groupScaleBytes(packedRowsOf(parts))];
      const shape = { format, cols, parts };
      const places = 64;
      const scales = places + align(placesBytes(shape));
      const sums = scales + align(scalesBytes(shape));
      const first = sums + align(sumsBytes(shape));
      using area = await b.openArea(first + cols * (column + 16));
      const columns: ScatteredColumns = { ...shape, places, scales, sums };
      const x = upload(b, 1, cols, normals(seed + 5, cols));
      const values = await b.read(x);
      const thresholds = parts.map((_, p) => 0.3 + 0.4 * p);
      const order = permutation(seed, cols);
      for (let i = 0; i < cols; i++) {
        const group = Math.floor(i / 32);
        const at = group * (scale + 32 * column);
        if (i % 32 === 0) {
          area.bytes(scales + group * scale, scale).set(packed.subarray(at, at + scale));
        }
        // Of inputs that no part keeps there is no column, and nothing may look for it.
        if (Math.abs(values[i]) <= Math.fround(0.3)) continue;
        const offset = first + order[i] * (column + 16);
        area.bytes(offset, column).set(packed.subarray(at + scale + (i % 32) * column).subarray(0, column));
        area.place(columns, i, offset);
      }
      const groups = padded(cols) / 32;
      for (const accumulate of [false, true]) {
        const [whole, inOne, inSteps] = [1, 2, 3].map(() => upload(b, 1, matrix.rows, normals(seed, matrix.rows)));
        b.takeCounters();
        b.linear(whole, x, matrix, { thresholds, bias, accumulate });
        const counted = b.takeCounters();
        area.linearColumns(inOne, x, columns, { thresholds, bias, accumulate });
        expect(b.takeCounters()).toEqual(counted);
        for (let from = 0; from < groups; from += 5) {
          const range = { firstGroup: from, endGroup: Math.min(groups, from + 5) };
          area.linearColumns(inSteps, x, columns, { thresholds, bias, accumulate, ...range });
          await b.flush();
        }
        const wanted = bits(await b.read(whole));
        expect(bits(await b.read(inOne))).toEqual(wanted);
        expect(bits(await b.read(inSteps))).toEqual(wanted);
        for (const y of [whole, inOne, inSteps]) b.release(y);
      }
      b.release(x);
    }
  });

  it.each(denseFormats)(
    "weights in an area: scattered rows in %s, those that are named and those of open gates",
    async (format) => {
      const b = backend();
      if (b.openArea === undefined) return;
      for (const [seed, cols, rows] of [
        [11, 68, 40],
        [12, 256, 152],
        [13, 420, 76],
      ] as const) {
        const values = normals(seed, rows * cols, 0.1);
        using region = b.openRegion({ weightBytes: 1 << 20 });
        const matrix = await region.loadMatrix([rowSource("rows", values, rows, cols)], format);
        const stored = packRows(format, values, rows, cols);
        const bytes = rowBytes(format, cols);
        expect(stored.byteLength).toBe(rows * bytes);
        const places = rows * (bytes + 12);
        using area = await b.openArea(places + 4 * rows);
        const order = permutation(seed, rows);
        for (const [i, row] of order.entries()) {
          area.bytes(i * (bytes + 12), bytes).set(stored.subarray(row * bytes, (row + 1) * bytes));
        }
        const placed = { format, cols, rows, places };
        for (const [i, row] of order.entries()) area.placeRow(placed, row, i * (bytes + 12));
        expect(() => area.placeRow(placed, rows, 0)).toThrow();
        const x = upload(b, 1, cols, normals(seed + 5, cols));
        // Some tiles of rows have many open gates, some few, and one of them none.
        const gates = normals(seed + 6, rows).map((gate, row) =>
          row >= 64 && row < 128 ? -1 : row % 5 === 0 ? 0 : gate,
        );
        gates[1] = Number.NaN;
        const gate = upload(b, 1, rows, gates);
        for (const threshold of [-1, 0.4]) {
          const whole = b.allocate(1, matrix.rows);
          b.linear(whole, x, matrix, threshold < 0 ? {} : { thresholds: [threshold] });
          const all = await b.read(whole);
          const before = normals(seed + 8, rows);
          const out = upload(b, 1, rows, before);
          const named = [...order.keys()].filter((i) => order[i] % 3 !== 0);
          const offsets = Uint32Array.from(named, (i) => i * (bytes + 12));
          const outputs = Uint32Array.from(named, (i) => order[i]);
          b.takeCounters();
          area.linearRows(out, x, { format, cols, offsets, outputs }, threshold);
          expect(b.takeCounters().weightBytesRead).toBe(named.length * bytes);
          expect(bits(await b.read(out))).toEqual(bits(before.map((value, row) => (row % 3 === 0 ? value : all[row]))));
          area.linearOpenRows(out, x, gate, placed, threshold);
          const open = all.map((value, row) => (gates[row] <= 0 ? 0 : value));
          expect(bits(await b.read(out))).toEqual(bits(open));
          const count = gates.filter((value) => !(value <= 0)).length;
          expect(b.takeCounters()).toMatchObject({ weightBytesRead: count * bytes, inputs: 0 });
          for (const y of [whole, out]) b.release(y);
        }
        for (const one of [x, gate]) b.release(one);
      }
    },
  );

  it("weights in an area: what reaches beyond it is refused, its bytes are counted and given back", async () => {
    const b = backend();
    if (b.openArea === undefined) return;
    const before = b.memoryBytes();
    const area = await b.openArea(4096);
    expect(b.memoryBytes() - before).toBe(4096);
    expect(() => area.bytes(4000, 97)).toThrow(/bytes 4000 to 4097 of an area of 4096/);
    area[Symbol.dispose]();
    expect(b.memoryBytes()).toBe(before);
  });
}
