import { afterAll, describe, expect, it, test } from "vitest";
import { normals, rowSource, thinned } from "../../../test/contract/harness.js";
import type { PackedFormatId } from "../../pack/index.js";
import type { Backend } from "../index.js";
import { createBackend, type NativeSet } from "./index.js";
import { openNative } from "./native.node.js";

const sets = (["avx512", "avxvnni", "avx2"] as const).filter((set) => "attach" in openNative(set));
const formats = ["q8", "q4", "bf16"] as const;
const sparseFormats = ["bitmask-q8", "bitmask-q4", "bitmask-bf16", "2:4-q8", "2:4-q4", "2:4-bf16"] as const;

/** Rows that fill whole registers and that do not, and incomplete groups of inputs. */
const shapes = [
  [32, 32],
  [96, 70],
  [224, 33],
  [608, 96],
  [1100, 64],
] as const;

/** What a product gives, its numbers as bits. */
async function product(
  backend: Backend,
  [format, rows, cols]: readonly [PackedFormatId, number, number],
  tokens: number,
  { thresholds, spoil }: { thresholds?: readonly number[]; spoil?: (x: Float32Array) => void } = {},
) {
  const parts = [rows, 33].map((count, n) =>
    rowSource(`part ${n}`, thinned(format, normals(1 + n, count * cols), cols, n), count, cols),
  );
  const w = await backend.loadMatrix(parts, format);
  const [x, y] = [backend.allocate(tokens, cols), backend.allocate(tokens, rows + 33)];
  const values = normals(3, tokens * cols);
  spoil?.(values);
  backend.write(x, values);
  backend.linear(y, x, w, { thresholds });
  const result = { values: await backend.read(y), counters: backend.takeCounters() };
  for (const activation of [x, y]) backend.release(activation);
  return result;
}

const open: Record<string, Backend> = {};
/** One backend for all tests. @param native which kernels, "none" for those of WebAssembly */
async function backendWith(native: NativeSet | "none"): Promise<Backend> {
  open[native] ??= await createBackend({ threads: 1, native: native === "none" ? false : native });
  return open[native];
}
afterAll(() => {
  for (const backend of Object.values(open)) backend[Symbol.dispose]();
});
const relaxed = (await backendWith("none")).info.description.includes("relaxed");

/** Both multiply and add with one rounding in the relaxed build; the baseline one rounds twice. */
function expectSame(actual: Float32Array, expected: Float32Array) {
  if (relaxed) expect(actual).toEqual(expected);
  else
    for (const [i, v] of expected.entries())
      if (!Number.isFinite(v)) expect(actual[i]).toBe(v);
      else expect(Math.abs(actual[i] - v) / (1 + Math.abs(v)), `output ${i}: ${actual[i]}, ${v}`).toBeLessThan(1e-5);
}

describe.skipIf(sets.length === 0)("native kernels", () => {
  describe.each(sets)("%s", (set) => {
    test.each([...formats, ...sparseFormats])(
      "%s: a product of one row is that of WebAssembly, its counters too",
      async (format) => {
        for (const [rows, cols] of shapes) {
          for (const options of [{}, { thresholds: [0.7, 0.2] }]) {
            const expected = await product(await backendWith("none"), [format, rows, cols], 1, options);
            const actual = await product(await backendWith(set), [format, rows, cols], 1, options);
            expectSame(actual.values, expected.values);
            expect(actual.counters).toEqual(expected.counters);
          }
        }
      },
    );

    test.each([...formats, ...sparseFormats])("%s: products of many rows are those of WebAssembly", async (format) => {
      for (const [rows, cols] of shapes) {
        for (const [tokens, options] of [
          [2, {}],
          [11, { thresholds: [0.7, 0.2] }],
          [17, {}],
        ] as const) {
          const expected = await product(await backendWith("none"), [format, rows, cols], tokens, options);
          const actual = await product(await backendWith(set), [format, rows, cols], tokens, options);
          expectSame(actual.values, expected.values);
        }
      }
    });

    test.each([...formats, ...sparseFormats])("%s: what is no number shows", async (format) => {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 3e-39]) {
        const spoil = (x: Float32Array) => {
          x[40] = value;
        };
        const options = { thresholds: [0.5, 0.1], spoil };
        const [expected, actual] = [
          await product(await backendWith("none"), [format, 96, 70], 1, options),
          await product(await backendWith(set), [format, 96, 70], 1, options),
        ];
        expectSame(actual.values, expected.values);
      }
    });
  });
});

describe("a product of one row", () => {
  it.each(["none", ...sets.slice(0, 1)] as const)("has the same bits whatever the threads (%s)", async (native) => {
    const expected = await product(await backendWith(native), ["q8", 1600, 200], 1, { thresholds: [0.3, 0.4] });
    for (const threads of [1, 5]) {
      using backend = await createBackend({ threads, native: native === "none" ? false : native });
      expect(await product(backend, ["q8", 1600, 200], 1, { thresholds: [0.3, 0.4] })).toEqual(expected);
    }
  });
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
