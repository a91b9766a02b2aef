import { existsSync, readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { afterAll, describe, expect, it, test } from "vitest";
import { normals, rowSource, thinned } from "../../../test/contract/harness.js";
import { type PackedFormatId, packRows, rowBytes } from "../../pack/index.js";
import type { Backend } from "../index.js";
import { createBackend, type NativeSet } from "./index.js";
import type { KernelBuild } from "./kernels.js";
import { nativeSets, openNative } from "./native.node.js";

// Node.js 20 has relaxed SIMD behind a flag: both builds are tried on every version.
setFlagsFromString("--experimental-wasm-relaxed-simd");

const sets = nativeSets.filter((set) => "attach" in openNative(set, false));
const formats: readonly PackedFormatId[] = [
  ...(["q8", "q4", "bf16"] as const),
  ...(["bitmask-q8", "bitmask-q4", "bitmask-bf16", "2:4-q8", "2:4-q4", "2:4-bf16"] as const),
];

/** Rows that fill whole registers and that do not, and incomplete groups of inputs. */
const shapes = [
  [32, 32],
  [96, 70],
  [224, 33],
  [608, 96],
  [1100, 64],
] as const;

interface Job {
  tokens: number;
  thresholds?: readonly number[];
  /** A number that x holds somewhere. */
  spoilt?: number;
}

const jobs: readonly Job[] = [
  { tokens: 1 },
  { tokens: 1, thresholds: [0.7, 0.2] },
  { tokens: 2 },
  { tokens: 11, thresholds: [0.7, 0.2] },
  { tokens: 17 },
];

/** What is no number must show, and so must numbers whose scale is none. */
const spoilt: readonly Job[] = [Number.NaN, Number.POSITIVE_INFINITY, 3e-39].flatMap((value) =>
  [1, 3].map((tokens) => ({ tokens, thresholds: [0.5, 0.1], spoilt: value })),
);

/** What products with one matrix of two parts give, and what they counted. */
async function products(
  backend: Backend,
  [format, rows, cols]: readonly [PackedFormatId, number, number],
  list: readonly Job[],
) {
  const parts = [rows, 33].map((count, n) =>
    rowSource(`part ${n}`, thinned(format, normals(1 + n, count * cols), cols, n), count, cols),
  );
  const w = await backend.loadMatrix(parts, format);
  const results = [];
  for (const { tokens, thresholds, spoilt } of list) {
    const [x, y] = [backend.allocate(tokens, cols), backend.allocate(tokens, rows + 33)];
    const values = normals(3, tokens * cols);
    if (spoilt !== undefined) values[(tokens - 1) * cols + 40] = spoilt;
    backend.write(x, values);
    backend.linear(y, x, w, { thresholds });
    results.push({ values: await backend.read(y), counters: backend.takeCounters() });
    for (const activation of [x, y]) backend.release(activation);
  }
  return results;
}

const open: Record<string, Backend> = {};
/** One backend for all tests. @param native which kernels, "none" for those of WebAssembly */
async function backendWith(native: NativeSet | "none", build: KernelBuild): Promise<Backend> {
  const name = `${native} ${build}`;
  open[name] ??= await createBackend({ threads: 1, build, native: native === "none" ? false : native });
  return open[name];
}
afterAll(() => {
  for (const backend of Object.values(open)) backend[Symbol.dispose]();
});

// The relaxed build multiplies and adds with one rounding, the baseline one with two; native kernels do as the build beside them does.
describe.skipIf(sets.length === 0).each(["relaxed", "baseline"] as const)(
  "native kernels beside the %s build",
  (build) => {
    async function expectSame(shape: readonly [PackedFormatId, number, number], list: readonly Job[]) {
      const expected = await products(await backendWith("none", build), shape, list);
      for (const set of sets) {
        const actual = await products(await backendWith(set, build), shape, list);
        for (const [i, { values, counters }] of expected.entries()) {
          const what = `${set} ${shape.join(" ")} ${JSON.stringify(list[i])}`;
          expect(actual[i].values, what).toEqual(values);
          expect(actual[i].counters, what).toEqual(counters);
        }
      }
    }

    test.each(formats)("%s: products have the bits of those of WebAssembly, and count the same", async (format) => {
      for (const [rows, cols] of shapes) await expectSame([format, rows, cols], jobs);
      await expectSame([format, 96, 70], spoilt);
    });
  },
);

// The sums of a group are then as large as they can be: AVX2 adds those of q4 in 16 bits, of two inputs of every four each.
describe.skipIf(sets.length === 0)("weights and inputs of the largest codes", () => {
  it.each(["q8", "q4"] as const)("%s have the bits of WebAssembly, of one row and of many", async (format) => {
    const [rows, cols] = [64, 64];
    // In every group one weight is the least, which makes the scale, and all others are the largest that there are.
    const weights = Float32Array.from({ length: rows * cols }, (_, i) => (i % 32 === 5 ? -8 : 7));
    const attempt = async (native: NativeSet | "none", inputs: Float32Array) => {
      const backend = await backendWith(native, "relaxed");
      const w = await backend.loadMatrix([rowSource("weights", weights, rows, cols)], format);
      const results: Float32Array[] = [];
      for (const tokens of [1, 5]) {
        const [x, y] = [backend.allocate(tokens, cols), backend.allocate(tokens, rows)];
        backend.write(
          x,
          Float32Array.from({ length: tokens * cols }, (_, i) => inputs[i % cols]),
        );
        backend.linear(y, x, w);
        results.push(await backend.read(y));
        for (const activation of [x, y]) backend.release(activation);
      }
      return results;
    };
    for (const signs of ["++++", "----", "++--", "--++", "+-+-"]) {
      const inputs = Float32Array.from({ length: cols }, (_, i) => (signs[i % 4] === "+" ? 1 : -1));
      const expected = await attempt("none", inputs);
      const exact = inputs.reduce((sum, x, i) => sum + x * weights[i], 0);
      // The scale is the nearest bf16 number.
      expect(Math.abs(expected[0][0] - exact), signs).toBeLessThan(0.03 * cols * 7);
      for (const set of sets) expect(await attempt(set, inputs), `${set} ${signs}`).toEqual(expected);
    }
  });
});

/** What rows that lie one by one give, those that are named and those of open gates, and what they counted. */
async function rowProducts(backend: Backend, format: "q8" | "q4", rows: number, cols: number) {
  const bytes = rowBytes(format, cols);
  const places = rows * bytes;
  using area = await backend.openArea!(places + 4 * rows);
  area.bytes(0, places).set(packRows(format, normals(1, rows * cols), rows, cols));
  const placed = { format, cols, rows, places };
  for (let i = 0; i < rows; i++) area.placeRow(placed, i, i * bytes);
  const results = [];
  for (const [threshold, spoilt] of [
    [-1, undefined],
    [0.7, undefined],
    [100, undefined],
    [0.5, Number.NaN],
    [0.5, Number.POSITIVE_INFINITY],
  ] as const) {
    const [x, gate, y] = [backend.allocate(1, cols), backend.allocate(1, rows), backend.allocate(1, rows)];
    const values = normals(3, cols);
    if (spoilt !== undefined) values[cols - 1] = spoilt;
    backend.write(x, values);
    backend.write(
      gate,
      normals(4, rows).map((v, i) => (i === 5 ? Number.NaN : i >= 64 ? v - 1.5 : v)),
    );
    area.linearOpenRows(y, x, gate, placed, threshold);
    const open = await backend.read(y);
    const outputs = Uint32Array.from({ length: rows - 3 }, (_, i) => (i * 5) % rows);
    const offsets = outputs.map((i) => i * bytes);
    area.linearRows(y, x, { format, cols, offsets, outputs }, threshold);
    results.push({ open, named: await backend.read(y), counters: backend.takeCounters() });
    for (const activation of [x, gate, y]) backend.release(activation);
  }
  return results;
}

describe.skipIf(sets.length === 0).each(["relaxed", "baseline"] as const)(
  "native rows beside the %s build",
  (build) => {
    test.each(["q8", "q4"] as const)(
      "%s: have the bits of those of WebAssembly, and count the same",
      async (format) => {
        for (const [rows, cols] of [
          [32, 32],
          [148, 68],
          [64, 1000],
        ]) {
          const expected = await rowProducts(await backendWith("none", build), format, rows, cols);
          for (const set of sets) {
            expect(
              await rowProducts(await backendWith(set, build), format, rows, cols),
              `${set} ${rows} ${cols}`,
            ).toEqual(expected);
          }
        }
      },
    );
  },
);

describe("a product of one row", () => {
  it.each(["none", ...sets.slice(0, 1)] as const)("has the same bits whatever the threads (%s)", async (native) => {
    const list = [{ tokens: 1, thresholds: [0.3, 0.4] }];
    const expected = await products(await backendWith(native, "baseline"), ["q8", 1600, 200], list);
    for (const threads of [2, 5]) {
      using backend = await createBackend({ threads, build: "baseline", native: native === "none" ? false : native });
      expect(await products(backend, ["q8", 1600, 200], list)).toEqual(expected);
    }
  });
});

const hasLargePages = existsSync("/sys/kernel/mm/transparent_hugepage") && existsSync("/proc/self/smaps");
/** Stretches of memory that were asked for in large pages. */
const advised = () => readFileSync("/proc/self/smaps", "utf8").match(/^VmFlags:.* hg\b/gm)?.length ?? 0;

describe.skipIf(sets.length === 0 || !hasLargePages)("weights of more than a large page", () => {
  it.each(["q8", "2:4-q8"] as const)(
    "are asked for in large pages, and only with native kernels (%s)",
    async (format) => {
      const [rows, cols] = [4096, 2048];
      const source = rowSource("weights", new Float32Array(rows * cols), rows, cols);
      for (const native of [false, sets[0]]) {
        using backend = await createBackend({ threads: 1, native });
        const before = advised();
        await backend.loadMatrix([source], format);
        const more = advised() - before;
        if (native === false) expect(more).toBe(0);
        else expect(more).toBeGreaterThan(0);
      }
    },
  );
});

describe("without native kernels", () => {
  it("says why, and works", async () => {
    process.env.RAREFY_NATIVE = "0";
    try {
      using backend = await createBackend({ threads: 1 });
      expect(backend.info.description).toMatch(/no native kernels \(RAREFY_NATIVE=0\)$/);
    } finally {
      delete process.env.RAREFY_NATIVE;
    }
  });

  it("refuses a set by a name that there is not", async () => {
    const unknown = createBackend({ native: "avx9000" as NativeSet });
    await expect(unknown).rejects.toThrow('the native kernels "avx9000" cannot be had');
  });
});
