import { expect, it } from "vitest";
import { UsageError } from "../../src/core/index.js";
import type { Backend, KvLayer } from "../../src/kernels/index.js";
import { type BackendUnderTest, expectWithin, normals, upload } from "./harness.js";
import * as oracle from "./oracle.js";

/** Attention with sinks (gpt-oss), and over values that lie in their keys (latent attention). */
export function sinksAndLatentSuite(backend: () => Backend, { tolerances, fewLayouts }: BackendUnderTest): void {
  const bound = `|Δ| ≤ ${tolerances.attention}·(1 + Σ|q·k|·scale)·max|v| + 1e-6`;

  /** Appends and attends chunk by chunk; returns the result, the mass of the layer, and bytes counted. */
  async function run(
    layer: KvLayer,
    queryHeads: number,
    chunks: readonly number[],
    { window, sinks, mass = false }: { window?: number; sinks?: Float32Array; mass?: boolean },
  ) {
    const b = backend();
    const { heads, key, value, valueInKey } = layer;
    const length = chunks.reduce((a, c) => a + c, 0);
    const q = normals(1, length * queryHeads * key);
    const keys = normals(2, length * heads * key);
    const values = valueInKey
      ? Float32Array.from({ length: length * heads * value }, (_, i) => keys[Math.floor(i / value) * key + (i % value)])
      : normals(3, length * heads * value);
    const scale = 1 / Math.sqrt(key);
    using cache = b.createKvCache({ layers: [layer], slots: length, ...(mass && { mass: "sum" as const }) });
    using sight = window === undefined ? undefined : b.loadSight({ kind: "causal", window });
    const result = new Float32Array(length * queryHeads * value);
    const loaded = sinks && b.loadVector(sinks);
    b.takeCounters();
    let start = 0;
    for (const rows of chunks) {
      const some = (a: Float32Array, cols: number) =>
        upload(b, rows, cols, a.subarray(start * cols, (start + rows) * cols));
      const [qs, ks] = [some(q, queryHeads * key), some(keys, heads * key)];
      const vs = valueInKey ? undefined : some(values, heads * value);
      const out = b.allocate(rows, queryHeads * value);
      b.appendKv(cache, 0, ks, vs, start);
      b.attention(out, qs, cache, 0, { queryHeads, scale, start, sight, sinks: loaded });
      result.set(await b.read(out), start * queryHeads * value);
      for (const activation of [qs, ks, out, ...(vs ? [vs] : [])]) b.release(activation);
      start += rows;
    }
    const see = (row: number, _: number, slot: number) => slot <= row && slot > row - (window ?? length + 1);
    const seen = { q, keys, values, queryHeads, heads, key, value, scale, see, sinks };
    expectWithin(
      result,
      oracle.seenAttention(seen, tolerances.attention),
      `${JSON.stringify(layer)}, window ${window}, ${sinks ? "sinks, " : ""}chunks ${chunks}`,
    );
    const { kvBytesRead } = b.takeCounters();
    if (!mass) return { kvBytesRead, byteLength: cache.byteLength };
    const expected = new Float64Array(heads * length);
    oracle.addMass(expected, seen, "sum");
    const [found] = await b.readMass(cache);
    for (const [i, m] of expected.entries()) expect(Math.abs(found[i] - m)).toBeLessThan(1e-3);
    return { kvBytesRead, byteLength: cache.byteLength };
  }

  it(`attention: sinks take a share of every head's softmax, ${bound}`, async () => {
    const sinks = Float32Array.of(-3, 0, 2, 9, -1e4, 1.5);
    for (const window of [undefined, 5]) {
      for (const chunks of [[70], [40, 1, 1, 28]]) {
        await run({ heads: 2, key: 16, value: 16 }, 6, chunks, { window, sinks });
      }
    }
    await run({ heads: 3, key: 8, value: 12 }, 6, [50, 1], { sinks, mass: true });
  });

  it(`attention: values that lie in their keys are kept and read once, also where they are wide, ${bound}`, async () => {
    const widths = [
      [24, 16],
      [268, 260],
      [576, 512],
    ];
    for (const [key, value] of fewLayouts ? widths.slice(0, 2) : widths) {
      const layer = { heads: 1, key, value, valueInKey: true } as const;
      const { byteLength } = await run(layer, 4, [37, 1, 1], {});
      expect(byteLength).toBe(4 * key * 39);
      const { kvBytesRead } = await run(layer, 4, [1, 1], {});
      expect(kvBytesRead).toBe(4 * key * (1 + 2));
    }
    await run({ heads: 2, key: 12, value: 8, valueInKey: true }, 4, [20, 1], { mass: true });
    // Wide values of their own.
    await run({ heads: 1, key: 8, value: 300 }, 2, [33, 1], {});
  });

  it("moveKv: a value that lies in its key moves with it", async () => {
    const b = backend();
    using cache = b.createKvCache({ layers: [{ heads: 1, key: 8, value: 4, valueInKey: true }], slots: 4 });
    const k = upload(b, 2, 8, Float32Array.of(1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0));
    b.appendKv(cache, 0, k, undefined, 0);
    b.moveKv(cache, 0, { heads: Uint32Array.of(0), from: Uint32Array.of(1), to: Uint32Array.of(0) });
    const [q, out] = [upload(b, 1, 8, new Float32Array(8)), b.allocate(1, 4)];
    b.attention(out, q, cache, 0, { queryHeads: 1, scale: 1, start: 0 });
    expect([...(await b.read(out))]).toEqual([5, 6, 7, 8]);
    for (const activation of [k, q, out]) b.release(activation);
  });

  it("attention: values, sinks and caches that do not fit one another are refused", () => {
    const b = backend();
    expect(() => b.createKvCache({ layers: [{ heads: 1, key: 4, value: 8, valueInKey: true }], slots: 4 })).toThrow(
      UsageError,
    );
    using cache = b.createKvCache({ layers: [{ heads: 1, key: 8, value: 8 }], slots: 4 });
    const x = b.allocate(1, 8);
    expect(() => b.appendKv(cache, 0, x, undefined, 0)).toThrow("left out");
    const options = { queryHeads: 1, scale: 1, start: 0, sinks: b.loadVector(new Float32Array(2)) };
    expect(() => b.attention(x, x, cache, 0, options)).toThrow("2 sinks for 1 heads");
    b.release(x);
  });
}
