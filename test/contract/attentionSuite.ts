import { expect, it } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import { type BackendUnderTest, expectWithin, kvSpec, normals, upload, windowSight } from "./harness.js";
import * as oracle from "./oracle.js";

interface Heads {
  queryHeads: number;
  kvHeads: number;
  headDim: number;
}

const headShapes: readonly Heads[] = [
  { queryHeads: 4, kvHeads: 2, headDim: 16 },
  { queryHeads: 8, kvHeads: 8, headDim: 4 },
  { queryHeads: 6, kvHeads: 1, headDim: 20 },
  { queryHeads: 8, kvHeads: 4, headDim: 32 },
  { queryHeads: 2, kvHeads: 2, headDim: 128 },
];

export function attentionSuite(backend: () => Backend, { tolerances, fewLayouts }: BackendUnderTest): void {
  const bound = `|Δ| ≤ ${tolerances.attention}·(1 + Σ|q·k|·scale)·max|v| + 1e-6`;

  /** Runs `q`, `keys`, `values` of a whole sequence through a fresh cache in chunks of the given sizes. */
  async function run(
    heads: Heads,
    data: { q: Float32Array; keys: Float32Array; values: Float32Array },
    chunks: readonly number[],
    options: { window?: number; softcap?: number; scale: number; capacity?: number },
  ): Promise<Float32Array> {
    const b = backend();
    const { queryHeads, kvHeads, headDim } = heads;
    const length = chunks.reduce((a, c) => a + c, 0);
    const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
    using cache = b.createKvCache(kvSpec(2, kvHeads, headDim, options.capacity ?? length));
    const result = new Float32Array(length * queryWidth);
    using sight = windowSight(b, options.window);
    let start = 0;
    for (const rows of chunks) {
      const slice = (a: Float32Array, width: number) => a.subarray(start * width, (start + rows) * width);
      const q = upload(b, rows, queryWidth, slice(data.q, queryWidth));
      const k = upload(b, rows, kvWidth, slice(data.keys, kvWidth));
      const v = upload(b, rows, kvWidth, slice(data.values, kvWidth));
      const out = b.allocate(rows, queryWidth);
      b.appendKv(cache, 1, k, v, start);
      b.attention(out, q, cache, 1, { queryHeads, scale: options.scale, start, sight, softcap: options.softcap });
      result.set(await b.read(out), start * queryWidth);
      for (const activation of [q, k, v, out]) b.release(activation);
      start += rows;
    }
    return result;
  }

  const sequence = (heads: Heads, length: number, seed: number, size = 1) => ({
    q: normals(seed, length * heads.queryHeads * heads.headDim, size),
    keys: normals(seed + 1, length * heads.kvHeads * heads.headDim, size),
    values: normals(seed + 2, length * heads.kvHeads * heads.headDim),
  });

  it(`attention: every head layout, with and without a window, chunked and one by one, ${bound}`, async () => {
    for (const heads of fewLayouts ? headShapes.slice(0, 2) : headShapes) {
      const scale = 1 / Math.sqrt(heads.headDim);
      const data = sequence(heads, 70, heads.headDim);
      for (const window of fewLayouts ? [undefined, 4] : [undefined, 1, 4, 33, 1000]) {
        const expected = oracle.attention({ ...data, ...heads, scale, start: 0, window }, tolerances.attention);
        const what = `${JSON.stringify(heads)}, window ${window}`;
        for (const chunks of [[70], [1, 3, 17, 32, 17], [64, 1, 1, 1, 1, 1, 1]]) {
          const actual = await run(heads, data, chunks, { window, scale, capacity: 80 });
          expectWithin(actual, expected, `${what}, chunks ${chunks}`);
        }
      }
      const oneByOne = Array.from({ length: 70 }, () => 1);
      const expected = oracle.attention({ ...data, ...heads, scale, start: 0 }, tolerances.attention);
      expectWithin(await run(heads, data, oneByOne, { scale }), expected, `${JSON.stringify(heads)}, one by one`);
    }
  });

  it(`attention: capped scores, small and far beyond the cap, ${bound}`, async () => {
    for (const heads of [
      { queryHeads: 4, kvHeads: 2, headDim: 16 },
      { queryHeads: 3, kvHeads: 3, headDim: 8 },
    ]) {
      const data = sequence(heads, 70, heads.headDim + 1);
      for (const [softcap, scale] of [
        [50, 0.25],
        [2, 1],
        [0.5, 4],
      ]) {
        const expected = oracle.attention({ ...data, ...heads, scale, start: 0, softcap }, tolerances.attention);
        for (const chunks of [[70], [1, 3, 66], [68, 1, 1]]) {
          const actual = await run(heads, data, chunks, { softcap, scale });
          expectWithin(actual, expected, `cap ${softcap}, scale ${scale}, chunks ${chunks}`);
        }
      }
    }
  });

  it(`attention: 600 positions in a cache that grows over many appends, ${bound}`, async () => {
    const heads = { queryHeads: 4, kvHeads: 2, headDim: 32 };
    const scale = 1 / Math.sqrt(32);
    const data = sequence(heads, 600, 40);
    const expected = oracle.attention({ ...data, ...heads, scale, start: 0 }, tolerances.attention);
    const actual = await run(heads, data, [128, 1, 127, 1, 255, 1, 1, 86], { scale, capacity: 1000 });
    expectWithin(actual, expected, "600 positions");
  });

  it("attention: with one visible key the result is its value, exactly", async () => {
    const heads = { queryHeads: 4, kvHeads: 2, headDim: 16 };
    const data = sequence(heads, 9, 41);
    const actual = await run(heads, data, [9], { scale: 0.25, window: 1 });
    const expected = Float32Array.from(actual.keys(), (k) => {
      const [row, head, i] = [Math.floor(k / 64), Math.floor((k % 64) / 16), k % 16];
      return data.values[row * 32 + Math.floor(head / 2) * 16 + i];
    });
    expect(actual).toEqual(expected);
  });

  it(`attention: equal scores give the mean of the values, ${bound}`, async () => {
    const heads = { queryHeads: 2, kvHeads: 1, headDim: 4 };
    const data = sequence(heads, 37, 42);
    data.q.fill(0);
    const expected = oracle.attention({ ...data, ...heads, scale: 1, start: 0 }, tolerances.attention);
    expectWithin(await run(heads, data, [37], { scale: 1 }), expected, "mean");
  });

  it("attention: scores of ±10,000 stay finite and select the largest", async () => {
    const heads = { queryHeads: 1, kvHeads: 1, headDim: 4 };
    const keys = new Float32Array(5 * 4);
    for (const [s, size] of [-100, 100, -100, 100, -100].entries()) keys[s * 4] = size;
    const q = new Float32Array(5 * 4);
    for (let r = 0; r < 5; r++) q[r * 4] = 100;
    const values = normals(43, 20);
    const actual = await run(heads, { q, keys, values }, [5], { scale: 1 });
    const value = (s: number, i: number) => values[s * 4 + i];
    for (let i = 0; i < 4; i++) {
      expect(actual[i]).toBe(value(0, i));
      expect(actual[4 + i]).toBe(value(1, i));
      expect(actual[8 + i]).toBe(value(1, i));
      expect(actual[12 + i]).toBeCloseTo((value(1, i) + value(3, i)) / 2, 5);
      expect(actual[16 + i]).toBeCloseTo((value(1, i) + value(3, i)) / 2, 5);
    }
  });

  it("copyKv: a cache of another size goes on as the one it was copied from, bit by bit", async () => {
    const b = backend();
    const heads = { queryHeads: 4, kvHeads: 2, headDim: 8 };
    const data = sequence(heads, 12, 50);
    const part = (values: Float32Array, width: number, start: number, rows: number) =>
      upload(b, rows, width, values.subarray(start * width, (start + rows) * width));
    using from = b.createKvCache(kvSpec(2, 2, 8, 12));
    using to = b.createKvCache(kvSpec(2, 2, 8, 17));
    for (const layer of [0, 1]) {
      b.appendKv(from, layer, part(data.keys, 16, layer, 9), part(data.values, 16, layer, 9), 0);
      b.appendKv(to, layer, part(data.keys, 16, 0, 1), part(data.values, 16, 0, 1), 0);
    }
    b.copyKv(from, to, 7);
    // What comes afterwards in the one is not in the other.
    for (const layer of [0, 1]) b.appendKv(from, layer, part(data.keys, 16, 3, 1), part(data.values, 16, 3, 1), 2);
    for (const layer of [0, 1]) {
      using whole = b.createKvCache(kvSpec(2, 2, 8, 17));
      b.appendKv(whole, layer, part(data.keys, 16, layer, 7), part(data.values, 16, layer, 7), 0);
      const results: Float32Array[] = [];
      for (const cache of [to, whole]) {
        b.appendKv(cache, layer, part(data.keys, 16, 11, 1), part(data.values, 16, 11, 1), 7);
        const out = b.allocate(1, 32);
        b.attention(out, part(data.q, 32, 11, 1), cache, layer, { queryHeads: 4, scale: 0.3, start: 7 });
        results.push(await b.read(out));
      }
      expect(results[0]).toEqual(results[1]);
    }
  });

  it("layers with room of their own: each as in a cache by itself, also when they are copied", async () => {
    const b = backend();
    const data = sequence({ queryHeads: 4, kvHeads: 2, headDim: 8 }, 12, 51);
    const part = (values: Float32Array, width: number, start: number, rows: number) =>
      upload(b, rows, width, values.subarray(start * width, (start + rows) * width));
    const spec = (...slots: number[]) => {
      const { layers, ...rest } = kvSpec(slots.length, 2, 8, Math.max(...slots));
      return { ...rest, layers: layers.map((layer, l) => ({ ...layer, slots: slots[l] })) };
    };
    const rows = [5, 9, 3];
    using from = b.createKvCache(spec(6, 10, 4));
    using to = b.createKvCache(spec(8, 11, 3));
    expect(from.byteLength).toBe((6 + 10 + 4) * 2 * 16 * 4);
    for (const [layer, count] of rows.entries())
      b.appendKv(from, layer, part(data.keys, 16, layer, count), part(data.values, 16, layer, count), 0);
    b.copyKv(from, to, [4, 9, 0]);
    for (const [layer, count] of [4, 9].entries()) {
      using alone = b.createKvCache(kvSpec(1, 2, 8, 12));
      b.appendKv(alone, 0, part(data.keys, 16, layer, count), part(data.values, 16, layer, count), 0);
      const results: Float32Array[] = [];
      for (const [cache, at] of [
        [from, layer],
        [to, layer],
        [alone, 0],
      ] as const) {
        // The last slot goes to the middle, and a new token behind what is left.
        b.moveKv(cache, at, {
          heads: Uint32Array.of(0, 1),
          from: Uint32Array.of(count - 1, count - 1),
          to: Uint32Array.of(1, 1),
        });
        b.appendKv(cache, at, part(data.keys, 16, 11, 1), part(data.values, 16, 11, 1), count - 1);
        const out = b.allocate(1, 32);
        b.attention(out, part(data.q, 32, 11, 1), cache, at, { queryHeads: 4, scale: 0.3, start: count - 1 });
        results.push(await b.read(out));
      }
      expect(results[1]).toEqual(results[2]);
      // What is behind what was copied stays where it was.
      expect(results[0]).toEqual(results[2]);
    }
    const keys = part(data.keys, 16, 0, 4);
    expect(() => b.appendKv(to, 2, keys, keys, 0)).toThrow("slots 0 … 3 in a cache of 3");
    expect(() => b.copyKv(from, to, [4, 9, 4])).toThrow("4 slots of a cache of 3");
  });

  it(`attention: caches and layers do not mix, and rows written again replace the old ones, ${bound}`, async () => {
    const b = backend();
    const heads = { queryHeads: 2, kvHeads: 1, headDim: 8 };
    const spec = kvSpec(3, 1, 8, 12);
    const caches = [b.createKvCache(spec), b.createKvCache(spec)];
    const data = new Map<string, ReturnType<typeof sequence>>();
    const append = (cache: number, layer: number, seed: number) => {
      const history = sequence(heads, 10, seed);
      data.set(`${cache} ${layer}`, history);
      const k = upload(b, 10, 8, history.keys);
      const v = upload(b, 10, 8, history.values);
      b.appendKv(caches[cache], layer, k, v, 0);
      b.release(k);
      b.release(v);
    };
    for (const cache of [0, 1]) for (const layer of [0, 1, 2]) append(cache, layer, 100);
    for (const cache of [0, 1]) for (const layer of [2, 0, 1]) append(cache, layer, 10 * cache + layer);
    for (const cache of [1, 0]) {
      for (const layer of [0, 1, 2]) {
        const history = data.get(`${cache} ${layer}`)!;
        const q = upload(b, 10, 16, history.q);
        const out = b.allocate(10, 16);
        b.attention(out, q, caches[cache], layer, { queryHeads: 2, scale: 0.5, start: 0 });
        const expected = oracle.attention({ ...history, ...heads, scale: 0.5, start: 0 }, tolerances.attention);
        expectWithin(await b.read(out), expected, `cache ${cache}, layer ${layer}`);
        b.release(q);
        b.release(out);
      }
    }
    for (const cache of caches) cache[Symbol.dispose]();
  });

  it(`attention: q, k, v and out may be views of wider activations, ${bound}`, async () => {
    const b = backend();
    const heads = { queryHeads: 4, kvHeads: 2, headDim: 8 };
    const data = sequence(heads, 6, 44);
    using cache = b.createKvCache(kvSpec(1, 2, 8, 6));
    const qkv = b.allocate(6, 64);
    b.write(qkv.columns(0, 32), data.q);
    b.write(qkv.columns(32, 16), data.keys);
    b.write(qkv.columns(48, 16), data.values);
    const wide = upload(b, 7, 40, new Float32Array(280).fill(7));
    b.appendKv(cache, 0, qkv.columns(32, 16), qkv.columns(48, 16), 0);
    const out = wide.rowRange(1, 6).columns(4, 32);
    b.attention(out, qkv.columns(0, 32), cache, 0, { queryHeads: 4, scale: 0.3, start: 0 });
    const expected = oracle.attention({ ...data, ...heads, scale: 0.3, start: 0 }, tolerances.attention);
    expectWithin(await b.read(out), expected, "views");
    const all = await b.read(wide);
    expect(all.subarray(0, 40).every((v) => v === 7)).toBe(true);
    for (let r = 1; r < 7; r++) {
      for (const column of [0, 1, 2, 3, 36, 37, 38, 39]) expect(all[r * 40 + column]).toBe(7);
    }
    b.release(qkv);
    b.release(wide);
  });
}
