import { Random } from "../../src/core/index.js";
import type {
  Activation,
  Backend,
  KvCacheSpec,
  Matrix,
  RowSource,
  Sight,
  WeightLoading,
} from "../../src/kernels/index.js";
import {
  isSparse,
  type PackedFormatId,
  packAs,
  sparseFormats,
  unpackAs,
  valueTypeOf,
  type WeightFormatId,
  weightFormats,
} from "../../src/pack/index.js";
import { type DType, fromFloat32 } from "../../src/tensor/index.js";
import { once } from "./once.js";

/** How far a backend may be from the f64 oracle. The bounds that use these figures are printed in the test titles. */
export interface Tolerances {
  /**
   * Matrix products. `relative` multiplies Σ|w·x| (rounding of sums). With `int8Activations` the backend rounds inputs to
   * 8 bits per group of 32 of a row, which may add Σ over groups of max|x|/254 · Σ|w|.
   */
  linear: Readonly<Record<WeightFormatId, { relative: number; int8Activations: boolean }>>;
  /** Norms, rotations and activation functions, relative to the sizes of their terms. */
  elementwise: number;
  /** Attention, relative to max|v| and to the size of the scores. */
  attention: number;
}

/** The tolerance of a format: that of its value type, but for LLM.int8(), which has one scale for a row of inputs. */
export const linearTolerance = ({ linear }: Tolerances, format: PackedFormatId) =>
  format === "int8-mixed" ? { ...linear.q8, int8Rows: true } : { ...linear[valueTypeOf(format)], int8Rows: false };

const f32Sums = { relative: 1e-5, int8Activations: false };
const int8Products = { relative: 1e-5, int8Activations: true };

/** Everything in f32 or better. */
export const f32Tolerances: Tolerances = {
  linear: { f32: f32Sums, bf16: f32Sums, q8: f32Sums, q4: f32Sums },
  elementwise: 1e-5,
  attention: 1e-5,
};

/** As above, but q8 and q4 products take inputs rounded to int8. */
export const int8ActivationTolerances: Tolerances = {
  ...f32Tolerances,
  linear: { f32: f32Sums, bf16: f32Sums, q8: int8Products, q4: int8Products },
};

export interface BackendUnderTest {
  /** For test titles: "wasm, baseline SIMD, 2 threads". */
  name: string;
  create(): Promise<Backend>;
  /** One that shares nothing with others, where those of `create` may share a device. */
  createAlone?(): Promise<Backend>;
  tolerances: Tolerances;
  /** The formats that it has kernels for. */
  formats: readonly PackedFormatId[];
  /** Whether it has the operations that are several others at once. */
  fuses?: boolean;
  /** It compiles kernels anew for every width of a head, which takes most of the time of a software GPU. */
  compiles?: boolean;
  /** A few layouts of attention, where another run has tried the same kernels with all of them. */
  fewLayouts?: boolean;
  /** How many random shapes it is tried on, where fewer are enough. */
  randomShapes?: number;
}

export const denseFormats = Object.keys(weightFormats) as WeightFormatId[];
export const allFormats: readonly PackedFormatId[] = [
  ...denseFormats,
  ...(Object.keys(sparseFormats) as PackedFormatId[]),
];

/** Those that the GPU has kernels for. */
export const gpuFormats = allFormats.filter(
  (format) => !isSparse(format) || ["bitmask", "2:4"].includes(sparseFormats[format].structure),
);

/** f32 [count], standard normal times `scale`, the same for the same seed. */
export function normals(seed: number, count: number, scale = 1): Float32Array {
  const drawn = once(["normals", seed, count, scale], () => {
    const random = new Random(seed);
    return Float32Array.from({ length: count }, () => random.normal() * scale);
  });
  return drawn.slice();
}

/** A matrix in memory, as a file would serve it. */
export function rowSource(
  name: string,
  values: Float32Array,
  rows: number,
  cols: number,
  dtype: DType & ("F32" | "F16" | "BF16") = "F32",
): RowSource {
  const bytes = fromFloat32(dtype, values);
  const rowBytes = bytes.byteLength / rows;
  return {
    name,
    rows,
    cols,
    dtype,
    read: async (start, count, into) => into.set(bytes.subarray(start * rowBytes, (start + count) * rowBytes)),
  };
}

/** Bytes of a packed matrix, and the f32 values that they stand for. */
export function packed(format: PackedFormatId, values: Float32Array, rows: number, cols: number) {
  const bytes = packAs(format, values, rows, cols);
  return { bytes, values: unpackAs(format, bytes, rows, cols) };
}

/** Sets weights to 0 so that a format can hold the matrix and has something to leave out. */
export function thinned(format: PackedFormatId, values: Float32Array, cols: number, seed: number): Float32Array {
  if (!isSparse(format)) return values;
  const random = new Random(seed + 7);
  if (sparseFormats[format].structure === "2:4") {
    return values.map((v, i) => {
      const [row, c] = [Math.floor(i / cols), i % cols];
      // Two of four, or fewer, that differ from row to row and from four to four.
      const kept = [(row + (c >> 2)) % 4, (row * 3 + (c >> 2) * 2 + 1) % 4];
      return kept.includes(c % 4) && (row + c) % 7 !== 0 ? v : 0;
    });
  }
  // Blocks of 32 × 32 that are nearly empty, nearly full, and in between; some wholly empty.
  const shares = Array.from({ length: 64 }, () => [0, 0, 0.1, 0.4, 0.6, 1][Math.floor(random.uniform() * 6)]);
  return values.map((v, i) => {
    const block = Math.floor(i / cols / 32) * 5 + Math.floor((i % cols) / 32);
    return random.uniform() < shares[block % 64] ? v : 0;
  });
}

/** A loaded stack of matrices with the f32 values [rows, cols] that its packed bytes stand for. */
export interface LoadedMatrix {
  handle: Matrix;
  values: Float32Array;
  /** Of each part. */
  bytes: Uint8Array[];
}

export async function loadStack(
  backend: WeightLoading,
  format: PackedFormatId,
  partRows: readonly number[],
  cols: number,
  seed = 1,
): Promise<LoadedMatrix> {
  const stored = partRows.map((rows, p) =>
    once(["stored", format, rows, cols, seed, p], () =>
      thinned(format, normals(seed * 31 + p, rows * cols, 0.5), cols, seed + p),
    ),
  );
  const sources = stored.map((values, p) => rowSource(`part${p}`, values, partRows[p], cols));
  const handle = await backend.loadMatrix(sources, format);
  const values = new Float32Array(handle.rows * cols);
  const bytes: Uint8Array[] = [];
  for (const [p, part] of handle.parts.entries()) {
    const made = once(["packed", format, part.rows, cols, seed, p], () => packed(format, stored[p], part.rows, cols));
    values.set(made.values, part.rowStart * cols);
    bytes.push(made.bytes);
  }
  return { handle, values, bytes };
}

/** A cache of layers that are all alike. */
export const kvSpec = (layers: number, heads: number, width: number, slots: number): KvCacheSpec => ({
  layers: Array.from({ length: layers }, () => ({ heads, key: width, value: width })),
  slots,
});

/** What a window shows; undefined is causal. */
export const windowSight = (backend: Backend, window: number | undefined): Sight | undefined =>
  window === undefined ? undefined : backend.loadSight({ kind: "causal", window });

/** An activation that holds `values`. */
export function upload(backend: Backend, rows: number, cols: number, values: Float32Array): Activation {
  const out = backend.allocate(rows, cols);
  backend.write(out, values);
  return out;
}

/** Columns [start, start + count) of row-major `values` with `cols` columns. */
export function columnsOf(values: Float32Array, cols: number, start: number, count: number): Float32Array {
  const rows = values.length / cols;
  const out = new Float32Array(rows * count);
  for (let r = 0; r < rows; r++) out.set(values.subarray(r * cols + start, r * cols + start + count), r * count);
  return out;
}

export interface Expected {
  /** f64, same shape as the result. */
  values: Float64Array;
  /** Largest allowed |difference| of each. */
  bounds: Float64Array;
}

/** Fails with the worst element unless every |actual − expected| is within its bound. NaN is never within a bound. */
export function expectWithin(actual: Float32Array, expected: Expected, what: string): void {
  if (actual.length !== expected.values.length) {
    throw new Error(`${what}: ${actual.length} values, expected ${expected.values.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i] - expected.values[i]);
    if (!(difference <= expected.bounds[i])) {
      throw new Error(
        `${what}: element ${i} is ${actual[i]}, expected ${expected.values[i]} ± ${expected.bounds[i]} (off by ${difference})`,
      );
    }
  }
}
