import { setFlagsFromString } from "node:v8";
import { afterAll, describe, expect, test } from "vitest";
import { normals, upload } from "../../../test/contract/harness.js";
import { type Backend, type KvCacheSpec, type KvLayer, keyBlocks, type SightSpec } from "../index.js";
import { createBackend, type NativeSet } from "./index.js";
import type { KernelBuild } from "./kernels.js";
import { openNative } from "./native.node.js";

// As in native.test.ts: native attention has the bits of that of WebAssembly, in both builds.
setFlagsFromString("--experimental-wasm-relaxed-simd");
const sets = (["avx512", "avx2"] as const).filter((set) => "attach" in openNative(set, false));

interface Case {
  name: string;
  layer: KvLayer;
  queryHeads: number;
  /** Rows of every pass. */
  passes: readonly number[];
  codes?: KvCacheSpec["codes"];
  mass?: KvCacheSpec["mass"];
  sight?: (rows: number, slots: number) => SightSpec;
  sinks?: boolean;
  softcap?: number;
  /** A number that one key, and one value, holds. */
  spoilt?: number;
  threads?: number;
}

const wide = { heads: 2, key: 64, value: 64 } as const;
const window = (size: number) => (): SightSpec => ({ kind: "causal", window: size });
/** The first 32 slots, the last 40, and every third slot for the second half of the heads. */
const blocks = (heads: number) => (rows: number, slots: number) =>
  keyBlocks(
    { rows, slots, tableOfHead: Array.from({ length: heads }, (_, h) => (h < heads / 2 ? 0 : 1)) },
    (row, table) => {
      const own = slots - rows + row + 1;
      if (row === 1) return [];
      if (table === 0)
        return [
          [0, Math.min(32, own)],
          [own - 40, own],
        ] as const;
      return Array.from({ length: Math.ceil(own / 3) }, (_, i) => [3 * i, 3 * i + 1] as const);
    },
  );
const kivi = (bits: 2 | 4) => ({ bits, kivi: { residual: 40, rows: 70 } });

const cases: readonly Case[] = [
  { name: "one query head a key head", layer: wide, queryHeads: 2, passes: [70, 1, 1, 130] },
  { name: "three query heads a key head", layer: { heads: 2, key: 80, value: 80 }, queryHeads: 6, passes: [67, 1, 33] },
  { name: "eight query heads a key head", layer: wide, queryHeads: 16, passes: [70, 1, 63] },
  { name: "many rows, five threads", layer: wide, queryHeads: 8, passes: [300, 1], threads: 5 },
  { name: "values of another width", layer: { heads: 1, key: 20, value: 48 }, queryHeads: 5, passes: [40, 1, 29] },
  {
    name: "values that lie in keys",
    layer: { heads: 1, key: 96, value: 64, valueInKey: true },
    queryHeads: 4,
    passes: [40, 1, 30],
  },
  { name: "a window", layer: wide, queryHeads: 8, passes: [50, 90, 1], sight: window(33) },
  { name: "all of a pass", layer: wide, queryHeads: 4, passes: [45, 70], sight: () => ({ kind: "bidirectional" }) },
  { name: "blocks", layer: wide, queryHeads: 8, passes: [50, 1, 66], sight: blocks(8) },
  { name: "sinks and capped scores", layer: wide, queryHeads: 4, passes: [50, 1, 50], sinks: true, softcap: 3 },
  { name: "mass", layer: wide, queryHeads: 8, passes: [50, 1, 50], mass: "sum" },
  { name: "8-bit codes", layer: wide, queryHeads: 8, passes: [70, 1, 50], codes: { bits: 8 } },
  {
    name: "4-bit codes",
    layer: { heads: 1, key: 80, value: 48 },
    queryHeads: 4,
    passes: [70, 1, 50],
    codes: { bits: 4 },
    sight: window(50),
  },
  { name: "2-bit codes", layer: wide, queryHeads: 4, passes: [70, 1], codes: { bits: 2 }, sight: blocks(4) },
  { name: "KIVI in 2 bits", layer: wide, queryHeads: 8, passes: [70, 1, 1, 70, 50], codes: kivi(2) },
  {
    name: "KIVI in 4 bits, values in keys",
    layer: { heads: 1, key: 96, value: 64, valueInKey: true },
    queryHeads: 8,
    passes: [70, 70, 1],
    codes: kivi(4),
  },
  ...[Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e-40].flatMap((spoilt) => [
    { name: `a key and a value with ${spoilt}`, layer: wide, queryHeads: 4, passes: [70, 1], spoilt },
    { name: `the same in codes`, layer: wide, queryHeads: 4, passes: [70, 1], spoilt, codes: { bits: 8 } as const },
  ]),
  // What native kernels leave to WebAssembly.
  { name: "widths that fill no vector", layer: { heads: 1, key: 12, value: 20 }, queryHeads: 2, passes: [5, 1] },
];

/** What every pass gives, then the mass of the slots. */
async function attended(b: Backend, of: Case): Promise<Float32Array[]> {
  const { layer, queryHeads, passes, codes, mass, sight, sinks, softcap, spoilt } = of;
  const { heads, key, value, valueInKey } = layer;
  const slots = passes.reduce((sum, rows) => sum + rows, 0);
  using cache = b.createKvCache({ layers: [layer], slots, codes, mass });
  const loadedSinks = sinks ? b.loadVector(normals(9, queryHeads)) : undefined;
  const results: Float32Array[] = [];
  let start = 0;
  for (const [pass, rows] of passes.entries()) {
    const [keys, values] = [normals(10 + pass, rows * heads * key), normals(20 + pass, rows * heads * value)];
    if (spoilt !== undefined && rows > 40) {
      keys[30 * heads * key + 5] = spoilt;
      values[35 * heads * value + 7] = spoilt;
    }
    const q = upload(b, rows, queryHeads * key, normals(30 + pass, rows * queryHeads * key));
    const k = upload(b, rows, heads * key, keys);
    const v = valueInKey ? undefined : upload(b, rows, heads * value, values);
    const out = b.allocate(rows, queryHeads * value);
    using loaded = sight === undefined ? undefined : b.loadSight(sight(rows, start + rows));
    b.appendKv(cache, 0, k, v, start);
    b.attention(out, q, cache, 0, {
      queryHeads,
      scale: 1 / Math.sqrt(key),
      start,
      sight: loaded,
      softcap,
      sinks: loadedSinks,
    });
    results.push(await b.read(out));
    for (const activation of [q, k, out, ...(v ? [v] : [])]) b.release(activation);
    start += rows;
  }
  return mass === undefined ? results : [...results, ...(await b.readMass(cache))];
}

const open: Record<string, Backend> = {};
async function backendWith(native: NativeSet | false, build: KernelBuild, threads: number): Promise<Backend> {
  open[`${native} ${build} ${threads}`] ??= await createBackend({ threads, build, native });
  return open[`${native} ${build} ${threads}`];
}
afterAll(() => {
  for (const backend of Object.values(open)) backend[Symbol.dispose]();
});

describe.skipIf(sets.length === 0).each(["relaxed", "baseline"] as const)(
  "native attention beside the %s build",
  (build) => {
    test.each(cases)("$name: the bits of WebAssembly", async (of) => {
      const expected = await attended(await backendWith(false, build, 1), of);
      expect(expected.some((values) => values.some((value) => value !== 0))).toBe(true);
      for (const set of sets) {
        const found = await attended(await backendWith(set, build, of.threads ?? 1), of);
        for (const [pass, values] of expected.entries()) expect(found[pass], `${set}, pass ${pass}`).toEqual(values);
      }
    });
  },
);
