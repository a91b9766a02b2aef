import { afterAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { type CpuCompute, type CpuSettings, openCpu } from "../../src/kernels/cpu/cpuCompute.js";
import type { DeviceMemory } from "../../src/kernels/internal.js";
import type { GemmLayout } from "../../src/train/engine/device/gemm.js";
import { type Product, Products } from "../../src/train/engine/device/products.js";

/** A product of matrices that lie between other numbers, and what float64 makes of it. */
interface Case {
  layout: GemmLayout;
  rows: number;
  columns: number;
  depth: number;
  batches?: number;
  heads?: number;
  bGroup?: number;
  causal?: "result" | "left" | "leftTransposed";
  alpha?: number;
  based?: boolean;
  /** Rows of each run, all from a multiple of 64 on. */
  runs?: number[];
}

const cases: Case[] = [
  { layout: "nt", rows: 4, columns: 4, depth: 4 },
  { layout: "nt", rows: 13, columns: 36, depth: 516, alpha: 0.3, based: true },
  { layout: "nt", rows: 200, columns: 520, depth: 260 },
  { layout: "nt", rows: 388, columns: 196, depth: 8, based: true },
  { layout: "nn", rows: 101, columns: 28, depth: 300, alpha: -2 },
  { layout: "nn", rows: 8, columns: 1032, depth: 12, based: true },
  { layout: "tn", rows: 68, columns: 44, depth: 528 },
  { layout: "tn", rows: 4, columns: 100, depth: 35, based: true, alpha: 0.5 },
  { layout: "nt", rows: 132, columns: 132, depth: 20, batches: 2, heads: 4, bGroup: 2, causal: "result", alpha: 0.25 },
  { layout: "nn", rows: 292, columns: 20, depth: 292, batches: 2, heads: 2, causal: "left", based: true },
  { layout: "tn", rows: 292, columns: 20, depth: 292, batches: 1, heads: 3, causal: "leftTransposed" },
  { layout: "nt", rows: 256, columns: 40, depth: 24, runs: [3, 0, 70] },
  { layout: "nn", rows: 256, columns: 24, depth: 40, runs: [65, 0, 12] },
  { layout: "tn", rows: 40, columns: 24, depth: 256, runs: [30, 0, 66] },
];

const open: CpuCompute[] = [];
afterAll(() => {
  for (const compute of open) compute[Symbol.dispose]();
});
const opened = async (settings: CpuSettings) => {
  const compute = await openCpu(settings);
  open.push(compute);
  return compute;
};

const gap = 8;
const sentinel = 12345;

/** The case with its numbers, as a device is given it. */
function numbersOf({ layout, rows, columns, depth, batches = 1, heads = 1, bGroup = 1, causal, runs }: Case) {
  const random = new Random(rows + columns + depth);
  const size = (n: number) => Math.ceil(n / 4) * 4;
  const [aRows, aCols] = layout === "tn" ? [depth, rows] : [size(rows), depth];
  const [bRows, bCols] = layout === "nt" ? [columns, depth] : [depth, columns];
  const count = runs?.length ?? 1;
  const aLength = aRows * (aCols + gap);
  const bLength = bRows * (bCols + gap);
  const cLength = size(rows) * (columns + gap);
  const values = (length: number) => Float32Array.from({ length }, () => random.normal());
  const a = values(gap + batches * heads * aLength);
  const b = values(gap + (layout === "tn" ? 1 : count) * batches * Math.ceil(heads / bGroup) * bLength);
  const c = new Float32Array(gap + (layout === "tn" ? count : 1) * batches * heads * cLength).fill(sentinel);
  const at = (matrix: number, stride: number, length: number) => ({ offset: gap + matrix * length, stride });
  /** Where runs begin, then how many rows each has; what fills one up is 0. */
  const starts: number[] = [0];
  for (const run of runs ?? []) starts.push(starts.at(-1)! + Math.ceil(run / 64) * 64);
  const words = Uint32Array.from([...starts, ...(runs ?? [])]);
  const clear = (x: Float32Array, stride: number, offset: number) => {
    for (const [r, run] of (runs ?? []).entries())
      for (let row = starts[r] + run; row < starts[r + 1]; row++)
        x.fill(0, offset + row * stride, offset + (row + 1) * stride);
  };
  clear(a, aCols + gap, gap);
  if (layout === "tn") clear(b, bCols + gap, gap);
  if (causal === "left" || causal === "leftTransposed") {
    for (let z = 0; z < batches * heads; z++)
      for (let i = 0; i < rows; i++)
        a.fill(0, gap + z * aLength + i * (aCols + gap) + i + 1, gap + z * aLength + i * (aCols + gap) + depth);
  }
  return {
    a,
    b,
    c,
    words,
    starts,
    at,
    lengths: { a: aLength, b: bLength, c: cLength },
    strides: { a: aCols + gap, b: bCols + gap, c: columns + gap },
  };
}

async function onDevice(compute: CpuCompute, one: Case): Promise<Float32Array> {
  const { a, b, c, words, lengths, strides } = numbersOf(one);
  const memoryOf = (values: Float32Array | Uint32Array): DeviceMemory => {
    const memory = compute.allocate(values.length, "factor");
    compute.write(memory, values);
    return memory;
  };
  const [ofA, ofB, ofC, ofBase] = [a, b, c, numbersOf({ ...one }).c.fill(7)].map(memoryOf);
  const { layout, rows, columns, depth, batches, heads = 1, bGroup = 1, causal, alpha, based, runs } = one;
  const isTn = layout === "tn";
  const inRuns = runs === undefined ? undefined : { memory: memoryOf(words), count: runs.length };
  const product: Product = {
    layout,
    rows,
    columns,
    depth,
    batches: inRuns && isTn ? runs!.length : batches,
    heads,
    bGroup,
    causal,
    alpha,
    base: based ? ofBase : undefined,
    a: { memory: ofA, stride: strides.a, offset: gap, batch: inRuns ? 0 : heads * lengths.a, head: lengths.a },
    b: {
      memory: ofB,
      stride: strides.b,
      offset: gap,
      batch: inRuns ? (isTn ? 0 : lengths.b) : Math.ceil(heads / bGroup) * lengths.b,
      head: lengths.b,
    },
    c: { memory: ofC, stride: strides.c, offset: gap, batch: inRuns && !isTn ? 0 : heads * lengths.c, head: lengths.c },
    runs: inRuns,
  };
  const parts = compute.allocate(16, "parts");
  new Products(compute.recorder, parts, compute.enoughTiles).record(product);
  return new Float32Array(await compute.recorder.read(ofC, 0, c.byteLength));
}

/** Float64, element by element; undefined: not written. */
function expected(one: Case): (number | undefined)[] {
  const { layout, rows, columns, depth, batches = 1, heads = 1, bGroup = 1, causal, alpha = 1, based, runs } = one;
  const { a, b, c, starts, lengths, strides } = numbersOf(one);
  const result: (number | undefined)[] = new Array(c.length).fill(undefined);
  const groups = Math.ceil(heads / bGroup);
  const dot = (aAt: number, bAt: number, i: number, j: number, from: number, to: number) => {
    let sum = 0;
    for (let k = from; k < to; k++) {
      const x = a[aAt + (layout === "tn" ? k * strides.a + i : i * strides.a + k)];
      sum += x * b[bAt + (layout === "nt" ? j * strides.b + k : k * strides.b + j)];
    }
    return alpha * sum + (based ? 7 : 0);
  };
  const put = (cAt: number, i: number, j: number, value: number) => {
    result[cAt + i * strides.c + j] = value;
  };
  for (let j = 0; j < columns; j++) {
    if (runs !== undefined) {
      for (const [r, run] of runs.entries()) {
        if (layout === "tn")
          for (let i = 0; i < rows; i++)
            put(gap + r * lengths.c, i, j, dot(gap, gap, i, j, starts[r], starts[r] + run));
        else
          for (let i = starts[r]; i < starts[r] + run; i++)
            put(gap, i, j, dot(gap, gap + r * lengths.b, i, j, 0, depth));
      }
      continue;
    }
    for (let z = 0; z < batches * heads; z++) {
      const ofB = Math.floor(z / heads) * groups + Math.floor((z % heads) / bGroup);
      for (let i = 0; i < rows; i++) {
        // Tiles above the diagonal need not be there; nobody reads what they hold.
        if (causal === "result" && j > i) continue;
        put(gap + z * lengths.c, i, j, dot(gap + z * lengths.a, gap + ofB * lengths.b, i, j, 0, depth));
      }
    }
  }
  return result;
}

function check(one: Case, found: Float32Array): void {
  const wanted = expected(one);
  const scale = Math.sqrt(one.depth) * Math.abs(one.alpha ?? 1) + 7;
  let worst = 0;
  let touched = 0;
  const { strides, c } = numbersOf(one);
  for (const [i, value] of wanted.entries()) {
    if (value !== undefined) worst = Math.max(worst, Math.abs(found[i] - value) / scale);
    // Between the rows nothing is written.
    else if ((i < gap || (i - gap) % strides.c >= one.columns) && found[i] !== c[i]) touched++;
  }
  expect(touched).toBe(0);
  expect(worst).toBeLessThan(4e-6);
}

const name = ({ layout, rows, columns, depth, ...more }: Case) =>
  `${layout} ${rows} × ${columns} × ${depth} ${JSON.stringify(more)}`;

describe("products of training on a CPU", async () => {
  const wasm = await opened({ threads: 1, native: false });
  const native = await opened({ threads: 1 });
  const together = await opened({ threads: 3 });
  const wasmTogether = await opened({ threads: 3, native: false });
  const isFused = wasm.description.includes("relaxed");

  test.each(cases.map((one) => [name(one), one] as const))("%s is that of float64", async (_, one) => {
    check(one, await onDevice(wasm, one));
    check(one, await onDevice(native, one));
  });

  test.each(cases.map((one) => [name(one), one] as const))("%s has the same bits on three threads", async (_, one) => {
    expect(await onDevice(together, one)).toEqual(await onDevice(native, one));
    expect(await onDevice(wasmTogether, one)).toEqual(await onDevice(wasm, one));
  });

  test.skipIf(!isFused)(
    `native kernels have the bits of relaxed SIMD, in every set${isFused ? "" : ": this engine has none"}`,
    async () => {
      for (const set of ["avx2", "avx512"] as const) {
        const own = await opened({ threads: 1, native: set }).catch(() => undefined);
        for (const one of own === undefined ? [] : cases)
          expect([set, one, await onDevice(own!, one)]).toEqual([set, one, await onDevice(wasm, one)]);
      }
    },
  );

  test("a product that would leave its buffers is refused", () => {
    const memory = wasm.allocate(64, "small");
    const factor = { memory, stride: 8 };
    const products = new Products(wasm.recorder, memory, 1);
    const product = { layout: "nt", rows: 8, columns: 8, depth: 8, a: factor, b: factor, c: factor } as const;
    for (const name of ["a", "b", "c"] as const) {
      const moved = { ...product, [name]: { ...factor, offset: 4 } };
      expect(() => products.record(moved)).toThrow(`reaches byte 272 of ${name}`);
    }
  });
});
