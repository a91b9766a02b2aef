import { median } from "../../core/index.js";
import {
  groupSize,
  type PackedFormatId,
  packSparse,
  type SparseFormatId,
  sparseFormats,
  type WeightFormatId,
} from "../../pack/index.js";
import type { ProductCosts } from "../backend.js";
import { zeroCounters } from "../counters.js";
import type { Context } from "./context.js";
import { type GpuMemory, usage } from "./device.js";
import { gpuFormat } from "./formats.js";
import { linear } from "./linear.js";
import type { FormatKernels } from "./matrix.js";
import type { SparseKernels } from "./sparseKernels.js";
import { sparseLinear } from "./sparseLinear.js";
import type { ActivationPool } from "./storage.js";
import { sparseTileRows } from "./wgsl/sparseAccess.js";

/** A matrix that is timed: all of its row tiles are the same one. */
interface Timed {
  readonly format: PackedFormatId;
  readonly density: number;
  /** Enqueues one product with the first `tiles` of them. */
  enqueue(tiles: number): void;
}

/**
 * Columns of the matrices, and row tiles of a small and of a large one: together they tell fixed from growing cost. A
 * software GPU is only to answer soon.
 */
const extent = { cols: 4096, tiles: [8, 96], products: 16, rounds: 3 } as const;
const extentInSoftware = { cols: 256, tiles: [1, 3], products: 2, rounds: 1 } as const;

/**
 * What products of one row take in the formats of a value type: a fixed time and one for every weight. Formats take turns
 * within each round. A GPU whose cache holds the matrices (up to 100 MB in bf16) flatters the dense one.
 */
export async function measureCosts(
  context: Context,
  pool: ActivationPool,
  value: WeightFormatId,
  dense: FormatKernels,
  sparse: ReadonlyMap<SparseFormatId, SparseKernels>,
): Promise<ProductCosts> {
  const { device, recorder } = context;
  const { cols, tiles, products, rounds } = device.isSoftware ? extentInSoftware : extent;
  const [few, many] = tiles;
  const rows = many * sparseTileRows;
  const [x, out] = [pool.take(1, cols), pool.take(1, rows)];
  device.gpu.queue.writeBuffer(
    x.memory.buffer,
    0,
    Float32Array.from({ length: cols }, (_, i) => Math.sin(i)),
  );
  const memories: GpuMemory[] = [];
  const ignored = zeroCounters();

  /** A buffer that holds `bytes` once for every tile. */
  const repeated = (bytes: Uint8Array, extra = 0) => {
    const memory = device.allocate(many * bytes.byteLength + extra, usage.storage | usage.copyDst, "timed");
    memories.push(memory);
    for (let tile = 0; tile < many; tile++) {
      device.gpu.queue.writeBuffer(memory.buffer, tile * bytes.byteLength, bytes as Uint8Array<ArrayBuffer>);
    }
    return memory;
  };
  const shapeOf = (count: number) => ({
    rows: count * sparseTileRows,
    cols,
    byteLength: 0,
    groups: cols / groupSize,
    parts: [{ name: "timed", rowStart: 0, rows: count * sparseTileRows, firstTile: 0, tiles: count }],
  });

  const timedDense = (): Timed => {
    const layout = gpuFormat(value, sparseTileRows);
    const memory = repeated(layout.format.pack(testTile(cols, 1), sparseTileRows, cols));
    const matrixOf = (count: number) => ({
      ...shapeOf(count),
      format: value,
      gpuFormat: layout,
      kernels: dense,
      chunks: [{ memory, runs: [{ part: 0, firstTile: 0, tiles: count, unitBase: 0 }] }],
    });
    return {
      format: value,
      density: 1,
      enqueue: (count) => linear(context, out.columns(0, count * sparseTileRows), x, matrixOf(count), {}, ignored),
    };
  };

  const timedSparse = (format: SparseFormatId, kernels: SparseKernels, density: number): Timed => {
    const exact = packSparse(sparseFormats[format], testTile(cols, density), sparseTileRows, cols);
    const packed = new Uint8Array(Math.ceil(exact.byteLength / 4) * 4);
    packed.set(exact);
    const memory = repeated(packed, 8);
    const places = device.allocate(many * 32, usage.storage | usage.copyDst, "timed");
    memories.push(places);
    const words = new Uint32Array(many * 8);
    for (let tile = 0; tile < many; tile++) {
      words.set([(tile * packed.byteLength) / 4, sparseTileRows, tile * sparseTileRows, 0], 8 * tile);
    }
    device.gpu.queue.writeBuffer(places.buffer, 0, words);
    const matrixOf = (count: number) => {
      const shape = shapeOf(count);
      const expanded = { ...shape, format: value, gpuFormat: gpuFormat(value), kernels: dense, plan: [] };
      return { ...shape, format, chunks: [{ memory, firstTile: 0, tiles: count }], places, kernels, dense: expanded };
    };
    return {
      format,
      density,
      enqueue: (count) =>
        sparseLinear(context, out.columns(0, count * sparseTileRows), x, matrixOf(count), {}, ignored),
    };
  };

  try {
    const cases = [timedDense()];
    for (const [format, kernels] of sparse) {
      cases.push(...sparseFormats[format].timedAt.map((density) => timedSparse(format, kernels, density)));
    }
    await recorder.settle();
    const elapsedMs = async ({ enqueue }: Timed, count: number, repeats: number) => {
      const startMs = performance.now();
      for (let i = 0; i < repeats; i++) enqueue(count);
      await recorder.settle();
      return performance.now() - startMs;
    };
    const times = cases.map(() => tiles.map((): number[] => []));
    for (let round = -1; round < rounds; round++) {
      for (const [c, timed] of cases.entries()) {
        for (const [i, count] of tiles.entries()) {
          // The difference leaves out what any wait costs. The first round warms up.
          const once = await elapsedMs(timed, count, products);
          const ms = ((await elapsedMs(timed, count, 2 * products)) - once) / products;
          if (round >= 0) times[c][i].push(ms);
        }
      }
    }
    const weights = (count: number) => count * sparseTileRows * cols;
    const fitted = cases.map(({ format, density }, c) => {
      const [small, large] = times[c].map(median);
      const perWeight = Math.max(0, large - small) / (weights(many) - weights(few));
      return { format, density, perWeight, fixed: Math.max(0, small - perWeight * weights(few)) };
    });
    return {
      predictMs(format, r, c, density) {
        const [low, high] = nearest(
          fitted.filter((fit) => fit.format === format),
          density,
        );
        const share = high === low ? 0 : (density - low.density) / (high.density - low.density);
        const between = (a: number, b: number) => Math.max(0, a + share * (b - a));
        return between(low.fixed, high.fixed) + between(low.perWeight, high.perWeight) * r * c;
      },
    };
  } finally {
    for (const activation of [x, out]) pool.giveBack(activation);
    for (const memory of memories) recorder.freeLater(memory);
  }
}

/** The two known densities that are nearest, ascending; the same twice where there is one. */
function nearest<Fit extends { density: number }>(fits: readonly Fit[], density: number): readonly [Fit, Fit] {
  if (fits.length === 1) return [fits[0], fits[0]];
  const found = fits.findIndex((fit) => fit.density >= density);
  const upper = found < 0 ? fits.length - 1 : Math.max(1, found);
  return [fits[upper - 1], fits[upper]];
}

/** f32 [128, cols] of which a share is not 0; at most two of every four inputs at 0.5. */
function testTile(cols: number, density: number): Float32Array {
  return Float32Array.from({ length: sparseTileRows * cols }, (_, at) => {
    const mixed = Math.imul(at, 0x9e3779b1) >>> 16;
    const first = Math.imul(at >> 2, 0x9e3779b1) >>> 30;
    const present = density === 0.5 ? ((first ^ at) & 3) < 2 : (mixed & 255) < 256 * density;
    return present ? 0.01 * (1 + (mixed & 127) / 128) * (mixed & 128 ? -1 : 1) : 0;
  });
}
