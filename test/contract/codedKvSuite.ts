import { expect, it } from "vitest";
import type { KvCodes } from "../../src/kernels/index.js";
import { type Backend, keyBlocks, type SightSpec } from "../../src/kernels/index.js";
import { f16FromF32, f32FromF16 } from "../../src/tensor/index.js";
import { type BackendUnderTest, expectWithin, normals, upload } from "./harness.js";
import * as oracle from "./oracle.js";

interface Shape {
  queryHeads: number;
  heads: number;
  key: number;
  value: number;
}

const shapes: readonly Shape[] = [
  { queryHeads: 4, heads: 2, key: 16, value: 16 },
  { queryHeads: 6, heads: 1, key: 20, value: 8 },
  { queryHeads: 2, heads: 2, key: 68, value: 36 },
  { queryHeads: 1, heads: 1, key: 24, value: 140 },
];
const perToken: readonly KvCodes[] = [{ bits: 8 }, { bits: 4 }, { bits: 2 }];
const inGroups: readonly KvCodes[] = [
  { bits: 2, kivi: { residual: 1, rows: 40 } },
  { bits: 4, kivi: { residual: 33, rows: 17 } },
  { bits: 8, kivi: { residual: 500, rows: 40 } },
];

const half = (x: number): number => f32FromF16(f16FromF32(x));

/** Nearer than this to the middle between two codes, in steps, a device that divides its own way takes either. */
const nearMiddle = (steps: number): number => 2 ** -20 * (1 + Math.abs(steps));

/** What a group of numbers comes back as, by how much each may be off where two codes are as near, and its step. */
function decoded(group: readonly number[], bits: number): { values: number[]; either: number[]; step: number } {
  const z = half(Math.min(...group));
  const step = half(Math.fround(Math.fround(Math.max(...group) - z) / (2 ** bits - 1)));
  const either: number[] = [];
  const values = group.map((x) => {
    const steps = step === 0 ? 0 : Math.fround(Math.fround(x - z) / step);
    const off = Math.abs(Math.abs(steps - Math.floor(steps)) - 0.5);
    either.push(off < nearMiddle(steps) ? step : 0);
    const even = 2 * Math.round(steps / 2);
    const code = Math.abs(steps - even) === 0.5 ? even : Math.round(steps);
    return z + step * Math.min(2 ** bits - 1, Math.max(0, code));
  });
  return { values, either, step };
}

/**
 * f32 [slots, heads * width] as a cache gives them back when slots before `coded` are codes, and by how much a device may be
 * off that takes the other one of two codes.
 */
function given(codes: KvCodes, part: "key" | "value", rows: Float32Array, heads: number, width: number, coded: number) {
  const result = rows.slice();
  const off = new Float32Array(rows.length);
  const { bits, kivi } = codes;
  const at = (slot: number, head: number, c: number) => (slot * heads + head) * width + c;
  const [tokens, channels] = kivi === undefined ? [1, width] : part === "key" ? [32, 1] : [1, 32];
  for (let slot = 0; slot < coded; slot += tokens) {
    for (let head = 0; head < heads; head++) {
      for (let first = 0; first < width; first += channels) {
        const places: number[] = [];
        for (let s = slot; s < slot + tokens; s++) {
          for (let c = first; c < Math.min(width, first + channels); c++) places.push(at(s, head, c));
        }
        const { values, either } = decoded(
          places.map((place) => rows[place]),
          bits,
        );
        for (const [i, place] of places.entries()) [result[place], off[place]] = [values[i], either[i]];
      }
    }
  }
  return { rows: result, off };
}

type Given = ReturnType<typeof given>;

const asGiven = ({ keys, values }: { keys: Given; values: Given }) => ({
  keys: keys.rows,
  values: values.rows,
  off: { keys: keys.off, values: values.off },
});

const codedBefore = ({ kivi }: KvCodes, slots: number, start: number): number =>
  kivi === undefined ? slots : 32 * Math.floor(Math.max(0, start + 1 - kivi.residual) / 32);

/** Caches of keys and values in a few bits. */
export function codedKvSuite(backend: () => Backend, { tolerances, fewLayouts, compiles }: BackendUnderTest): void {
  const tolerance = tolerances.attention;
  const bound = `|Δ| ≤ ${tolerance}·(1 + Σ|q·k|·scale)·max|v| + 1e-6`;

  async function attend(
    cache: ReturnType<Backend["createKvCache"]>,
    { queryHeads, key, value }: Shape,
    q: Float32Array,
    start: number,
    spec?: SightSpec,
  ): Promise<Float32Array> {
    const b = backend();
    const rows = q.length / queryHeads / key;
    const [x, out] = [upload(b, rows, queryHeads * key, q), b.allocate(rows, queryHeads * value)];
    const sight = spec && b.loadSight(spec);
    b.attention(out, x, cache, 0, { queryHeads, scale: 0.4, start, sight });
    const result = await b.read(out);
    sight?.[Symbol.dispose]();
    for (const activation of [x, out]) b.release(activation);
    return result;
  }

  function append(
    cache: ReturnType<Backend["createKvCache"]>,
    { heads, key, value }: Shape,
    keys: Float32Array,
    values: Float32Array,
    start: number,
  ): void {
    const b = backend();
    const rows = keys.length / heads / key;
    const [k, v] = [upload(b, rows, heads * key, keys), upload(b, rows, heads * value, values)];
    b.appendKv(cache, 0, k, v, start);
    for (const activation of [k, v]) b.release(activation);
  }

  const rowsOf = (a: Float32Array, width: number, from: number, to: number) => a.subarray(from * width, to * width);

  const tried = fewLayouts ? [perToken[1], inGroups[1]] : [...perToken, ...inGroups];
  for (const [n, codes] of tried.entries()) {
    it(`attention over ${JSON.stringify(codes)} is that over the numbers that the codes stand for, pass by pass, ${bound}`, async () => {
      const widths = compiles ? [n] : [n, n + 1];
      for (const i of widths.map((width) => width % shapes.length)) {
        const shape = shapes[i];
        const { heads, key, value, queryHeads } = shape;
        const slots = 107;
        const [keys, values] = [normals(i, slots * heads * key), normals(i + 9, slots * heads * value)];
        using cache = backend().createKvCache({ layers: [shape], slots: slots + 1, codes });
        let start = 0;
        for (const rows of [17, 1, 17, 17, 17, 1, 17, 1, 17, 1, 1]) {
          append(
            cache,
            shape,
            rowsOf(keys, heads * key, start, start + rows),
            rowsOf(values, heads * value, start, start + rows),
            start,
          );
          const q = normals(start, rows * queryHeads * key);
          const coded = Math.min(codedBefore(codes, slots, start), start + rows);
          const held = {
            keys: given(codes, "key", rowsOf(keys, heads * key, 0, start + rows), heads, key, coded),
            values: given(codes, "value", rowsOf(values, heads * value, 0, start + rows), heads, value, coded),
          };
          const data = { q, ...asGiven(held) };
          const first = start;
          const causal = (row: number, _head: number, slot: number) => slot <= first + row;
          const every3rd = (row: number, _head: number, slot: number) => slot <= first + row && (slot + row) % 3 === 0;
          const blocks = keyBlocks(
            { rows, slots: start + rows, tableOfHead: Array.from({ length: queryHeads }, () => 0) },
            (row) =>
              Array.from({ length: first + row + 1 }, (_, slot) => [slot, slot + 1] as const).filter(([slot]) =>
                every3rd(row, 0, slot),
              ),
          );
          const what = `${JSON.stringify(shape)}, ${rows} rows after ${start}`;
          const views = [[causal, undefined] as const, [every3rd, blocks] as const];
          for (const [see, spec] of rows === 1 ? views : [views[start % 2]]) {
            const expected = oracle.seenAttention({ ...data, ...shape, scale: 0.4, see }, tolerance);
            expectWithin(await attend(cache, shape, q, start, spec), expected, what);
          }
          start += rows;
        }
        expect(start).toBe(slots);
      }
    });
  }

  it("values come back within half a step of their group, and groups that are constant exactly", async () => {
    const shape = { queryHeads: 1, heads: 1, key: 4, value: 32 };
    for (const codes of perToken) {
      using cache = backend().createKvCache({ layers: [shape], slots: 3, codes });
      const values = normals(5, 96);
      values.fill(0.75, 64);
      append(cache, shape, normals(6, 12), values, 0);
      for (let slot = 0; slot < 3; slot++) {
        // One visible key: the result is its value.
        const row = await attend(cache, shape, normals(7, 4), slot, { kind: "causal", window: 1 });
        const own = values.subarray(slot * 32, slot * 32 + 32);
        const { step } = decoded([...own], codes.bits);
        // The ends of the range are f16.
        const most = step / 2 + 2 ** -10 * Math.max(...own.map(Math.abs));
        for (const [c, x] of own.entries()) expect(Math.abs(row[c] - x)).toBeLessThanOrEqual(slot === 2 ? 0 : most);
      }
    }
  });

  it("a cache of codes takes the bytes of its codes and scales, and attention reads no others", async () => {
    const b = backend();
    const shape = { queryHeads: 4, heads: 2, key: 64, value: 32 };
    // Words of the codes of a key and a value, and of their scales.
    const slot = { 8: 16 + 8 + 2, 4: 8 + 4 + 2, 2: 4 + 2 + 2 } as const;
    for (const bits of [8, 4, 2] as const) {
      const before = b.memoryBytes();
      using cache = b.createKvCache({ layers: [shape, shape], slots: 100, codes: { bits } });
      expect(cache.byteLength).toBe(2 * 2 * 100 * 4 * slot[bits]);
      expect(b.memoryBytes() - before).toBe(cache.byteLength);
      append(cache, shape, normals(1, 100 * 128), normals(2, 100 * 64), 0);
      b.takeCounters();
      await attend(cache, shape, normals(3, 256), 99);
      expect(b.takeCounters().kvBytesRead).toBe(2 * 100 * 4 * slot[bits]);
    }
    const kivi = { residual: 40, rows: 20 };
    using cache = b.createKvCache({ layers: [shape], slots: 128, codes: { bits: 2, kivi } });
    // Keys have 64 scales for each 32 tokens, values one for each token; 91 tokens are f32.
    expect(cache.byteLength).toBe(2 * 4 * (128 * (4 + 2 + 2 + 1) + 91 * 96));
    for (let start = 0; start < 120; start += 20) {
      append(cache, shape, normals(start, 20 * 128), normals(start + 1, 20 * 64), start);
    }
    b.takeCounters();
    await attend(cache, shape, normals(3, 256), 119);
    // Before the last pass, at 100, ⌊61 / 32⌋ groups were older than 40 tokens.
    expect(b.takeCounters().kvBytesRead).toBe(2 * 4 * (32 * 9 + 88 * 96));
  });

  it(`codes move with their scales, and collect mass, ${bound}`, async () => {
    const b = backend();
    for (const shape of fewLayouts ? shapes.slice(0, 1) : shapes) {
      const { heads, key, value, queryHeads } = shape;
      const slots = 70;
      using cache = b.createKvCache({ layers: [shape], slots, codes: { bits: 4 }, mass: "sum" });
      const [keys, values] = [normals(11, slots * heads * key), normals(12, slots * heads * value)];
      append(cache, shape, keys, values, 0);
      const q = normals(13, 2 * queryHeads * key);
      await attend(cache, shape, q, slots - 2);
      const ours = given({ bits: 4 }, "key", keys, heads, key, slots);
      const mass = new Float64Array(heads * slots);
      const see = (row: number, _head: number, slot: number) => slot <= slots - 2 + row;
      oracle.addMass(mass, { q, keys: ours.rows, ...shape, scale: 0.4, see }, "sum");
      const [actual] = await b.readMass(cache);
      for (const [at, wanted] of mass.entries())
        expect(Math.abs(actual[at] - wanted)).toBeLessThan(1e-4 * (1 + wanted));
      // Of the last head slot 3 goes, and the last slot comes there.
      const last = heads - 1;
      b.moveKv(cache, 0, { heads: Uint32Array.of(last), from: Uint32Array.of(slots - 1), to: Uint32Array.of(3) });
      expect((await b.readMass(cache))[0][last * slots + 3]).toBe(actual[last * slots + slots - 1]);
      const one = normals(14, queryHeads * key);
      const held = { keys: ours, values: given({ bits: 4 }, "value", values, heads, value, slots) };
      const data = { q: one, ...asGiven(held) };
      const gone = (_row: number, head: number, slot: number) =>
        Math.floor(head / (queryHeads / heads)) === last ? slot !== 3 : slot !== slots - 1;
      const expected = oracle.seenAttention({ ...data, ...shape, scale: 0.4, see: gone }, tolerance);
      expectWithin(await attend(cache, shape, one, slots - 2), expected, JSON.stringify(shape));
    }
  });

  it("what was coded in groups is begun anew from slot 0 alone, and no pass is longer than was said", async () => {
    const shape = { queryHeads: 1, heads: 1, key: 4, value: 4 };
    const rows = (n: number) => [normals(n, 4 * n), normals(n + 1, 4 * n)] as const;
    using cache = backend().createKvCache({
      layers: [shape],
      slots: 100,
      codes: { bits: 2, kivi: { residual: 4, rows: 32 } },
    });
    for (const start of [0, 32, 64]) append(cache, shape, ...rows(32), start);
    expect(() => append(cache, shape, ...rows(1), 31)).toThrow("slot 31");
    append(cache, shape, ...rows(1), 40);
    expect(() => append(cache, shape, ...rows(33), 41)).toThrow("33 rows");
    append(cache, shape, ...rows(1), 0);
  });

  it("keys and values that are no numbers show", async () => {
    const shape = { queryHeads: 1, heads: 1, key: 4, value: 4 };
    for (const part of [0, 1]) {
      using cache = backend().createKvCache({ layers: [shape], slots: 2, codes: { bits: 8 } });
      const rows = [normals(1, 8), normals(2, 8)] as const;
      rows[part][5] = Number.NaN;
      append(cache, shape, ...rows, 0);
      const row = await attend(cache, shape, normals(3, 4), 1);
      expect(row.some(Number.isNaN)).toBe(true);
    }
  });
}
