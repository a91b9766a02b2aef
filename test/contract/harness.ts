import { Random } from "../../src/core/index.js";
import type { Activation, Backend, Matrix, RowSource } from "../../src/kernels/index.js";
import { type WeightFormatId, weightFormats } from "../../src/pack/index.js";
import { type DType, fromFloat32 } from "../../src/tensor/index.js";

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
  tolerances: Tolerances;
}

export const formats = Object.keys(weightFormats) as WeightFormatId[];

/** Enough for everything the suite loads into one backend. */
export const reservedBytes = 96 * 2 ** 20;

/** f32 [count], standard normal times `scale`, the same for the same seed. */
export function normals(seed: number, count: number, scale = 1): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal() * scale);
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

/** A loaded stack of matrices with the f32 values [rows, cols] that its packed bytes stand for. */
export interface LoadedMatrix {
  handle: Matrix;
  values: Float32Array;
}

export async function loadStack(
  backend: Backend,
  format: WeightFormatId,
  partRows: readonly number[],
  cols: number,
  seed = 1,
): Promise<LoadedMatrix> {
  const stored = partRows.map((rows, p) => normals(seed * 31 + p, rows * cols, 0.5));
  const sources = stored.map((values, p) => rowSource(`part${p}`, values, partRows[p], cols));
  const handle = await backend.loadMatrix(sources, format);
  const { pack, unpack } = weightFormats[format];
  const values = new Float32Array(handle.rows * cols);
  for (const [p, part] of handle.parts.entries()) {
    values.set(unpack(pack(stored[p], part.rows, cols), part.rows, cols), part.rowStart * cols);
  }
  return { handle, values };
}

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
