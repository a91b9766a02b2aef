import { type ActivationFunction, activationFunctions, DeviceError, Random } from "../../core/index.js";
import { type WeightFormatId, weightFormats } from "../../pack/index.js";
import type { Backend, LinearOptions, RowSource } from "../backend.js";
import type { Context } from "./context.js";
import { gpuFormat } from "./formats.js";
import { linear, tilesOf } from "./linear.js";
import { lookUp } from "./lookUp.js";
import { withoutSlower } from "./matmulTiming.js";
import { candidates, type FormatKernels, loadMatrix, type MatvecKernel, type MatvecKernels } from "./matrix.js";
import { type ActivationPool, readRows } from "./storage.js";
import type { MatvecInput } from "./wgsl/matvecInputs.js";

// Drivers miscompile shaders now and then. Every kernel therefore computes something known before it is used.

/** How far a result may be from the exact one, as a share of the sizes of its terms. */
export const tolerance = 1e-4;

/** What products of one row are made for. Other activation functions are rarer: they are an operation before the product. */
const matvecInputs: readonly MatvecInput[] = ["plain", "silu"];

/**
 * The kernels of a format that compute right on this device, and what was wrong with those that are left out.
 * @throws DeviceError when the device gets an operation wrong by every kernel there is
 */
export async function checkFormat(
  context: Context,
  pool: ActivationPool,
  formatId: WeightFormatId,
): Promise<{ kernels: FormatKernels; problems: string[] }> {
  const { matvecs, matmuls, ...common } = candidates(context.device, gpuFormat(formatId));
  const test = await testProduct(context, pool, formatId, { ...common, matmuls, matvecs: {} });
  const { thresholds } = test;
  try {
    const goodMatmuls: (typeof matmuls)[number][] = [];
    for (const m of matmuls) {
      const only = { ...common, matvecs: {}, matmuls: [m] };
      if (await test.works(m.kernel.name, only, m.tokens + 3, { thresholds }, m.tolerance)) goodMatmuls.push(m);
    }
    const goodMatvecs: Partial<Record<MatvecInput, MatvecKernels>> = {};
    for (const input of matvecInputs) {
      const { matvecs: dense, sparseMatvecs } = matvecs(input);
      const firstRight = async (use: keyof MatvecKernels, kernels: readonly MatvecKernel[], more: LinearOptions) => {
        for (const kernel of kernels) {
          const only = { ...common, matmuls, matvecs: { [input]: { [use]: kernel } } };
          const options = { gate: test.gateOf(input), ...more };
          const { name } = kernel;
          if (!(await test.works(name, only, 1, options))) continue;
          // What a gate stands before is no norm's result.
          if (input === "plain" && !(await test.worksAfterNorm(name, only, options))) continue;
          if (await test.worksBeforeNorm(name, only, options)) return kernel;
        }
      };
      goodMatvecs[input] = {
        matvec: await firstRight("matvec", dense, {}),
        sparseMatvec: await firstRight("sparseMatvec", sparseMatvecs, { thresholds }),
      };
    }
    if (!(await test.embedWorks()) || goodMatmuls.length === 0) {
      throw new DeviceError(`this GPU computes wrongly: ${test.problems.join("; ")}`);
    }
    const others = { ...common, matvecs: goodMatvecs };
    const kernels = { ...others, matmuls: await withoutSlower(context, pool, formatId, others, goodMatmuls) };
    return { kernels, problems: test.problems };
  } finally {
    test.release();
  }
}

/** A stack of two parts, the first of two row tiles, the second of less than one; columns that do not fill a group. */
async function testProduct(context: Context, pool: ActivationPool, formatId: WeightFormatId, kernels: FormatKernels) {
  const format = weightFormats[formatId];
  const random = new Random(1);
  const cols = 200;
  const thresholds = [0.4, 0.9];
  const counters = { weightBytesRead: 0, inputs: 0, inputsSkipped: 0 };
  const parts = [gpuFormat(formatId).tileRows + 36, 40].map((rows, i) => {
    const stored = Float32Array.from({ length: rows * cols }, () => random.normal());
    return { source: source(`self-check ${i}`, stored, rows, cols), values: unpacked(stored, rows, cols) };
  });
  function unpacked(stored: Float32Array, rows: number, columns: number): Float32Array {
    return format.unpack(format.pack(stored, rows, columns), rows, columns);
  }

  const matrix = await loadMatrix(
    context.device,
    parts.map((part) => part.source),
    formatId,
    kernels,
    {},
  );
  const tokens = Math.max(...kernels.matmuls.map((m) => m.tokens)) + 3;
  const inputs = Float32Array.from({ length: tokens * cols }, () => random.normal());
  // Side by side, as a gate and what it opens are.
  const xAndUp = pool.take(tokens, 2 * cols);
  const x = xAndUp.columns(0, cols);
  const out = pool.take(tokens, Math.max(matrix.rows, cols));
  const ups = Float32Array.from({ length: cols }, () => random.normal());
  const up = xAndUp.columns(cols, cols).rowRange(0, 1);
  for (let row = 0; row < tokens; row++) {
    const values = Float32Array.of(...inputs.subarray(row * cols, (row + 1) * cols), ...ups);
    context.device.gpu.queue.writeBuffer(xAndUp.memory.buffer, row * 2 * cols * 4, values);
  }
  const problems: string[] = [];
  const expected = parts.map(({ values }, p) => ({ ...matrix.parts[p], values }));

  return {
    thresholds,
    problems,

    gateOf(input: MatvecInput): LinearOptions["gate"] {
      return input === "plain" ? undefined : { up, f: input, gateThreshold: 0.1 };
    },

    /** Whether a product of `rows` rows of x is right; if not, why goes into `problems`. */
    async works(
      name: string,
      withKernels: FormatKernels,
      rows: number,
      options: LinearOptions,
      share = tolerance,
    ): Promise<boolean> {
      const target = out.columns(0, matrix.rows).rowRange(0, rows);
      let result: Float32Array;
      try {
        linear(context, target, x.rowRange(0, rows), { ...matrix, kernels: withKernels }, options, counters);
        result = await readRows(context, target);
      } catch (error) {
        // A kernel that does not compile here; a device that went is another matter.
        context.device.throwIfGone();
        if (!(error instanceof DeviceError)) throw error;
        problems.push(`${name}: ${error.message}`);
        return false;
      }
      const problem = wrongProduct(
        {
          result,
          inputs: gated(inputs.subarray(0, rows * cols), ups, options.gate),
          rows,
          cols,
          parts: expected,
          thresholds: options.thresholds,
        },
        share,
      );
      if (problem !== undefined) problems.push(`${name} ${problem}`);
      return problem === undefined;
    },

    /** Whether one row is right when x lacks a factor of its norm. */
    async worksAfterNorm(name: string, withKernels: FormatKernels, options: LinearOptions): Promise<boolean> {
      const epsilon = 0.1;
      const row = inputs.subarray(0, cols);
      const total = sumOfSquares(row);
      const shares = pool.take(1, 4);
      context.device.gpu.queue.writeBuffer(shares.memory.buffer, 0, Float32Array.of(0.25 * total, 0.75 * total));
      const target = out.columns(0, matrix.rows).rowRange(0, 1);
      const before = { memory: shares.memory, count: 2, epsilon };
      linear(context, target, x.rowRange(0, 1), { ...matrix, kernels: withKernels }, options, counters, { before });
      const factor = 1 / Math.sqrt(total / cols + epsilon);
      const problem = wrongProduct({
        result: await readRows(context, target),
        inputs: row.map((v) => v * factor),
        rows: 1,
        cols,
        parts: expected,
        thresholds: options.thresholds,
      });
      pool.giveBack(shares);
      if (problem !== undefined) problems.push(`${name} after a norm ${problem}`);
      return problem === undefined;
    },

    /** Whether one row comes with what the norm after it is to multiply, and with its sum of squares. */
    async worksBeforeNorm(name: string, withKernels: FormatKernels, options: LinearOptions): Promise<boolean> {
      const weight = Float32Array.from({ length: matrix.rows }, () => random.normal());
      const [weights, scaled, squares] = [matrix.rows, matrix.rows, 4].map((size) => pool.take(1, size));
      context.device.gpu.queue.writeBuffer(weights.memory.buffer, 0, weight);
      const target = out.columns(0, matrix.rows).rowRange(0, 1);
      const after = { out: scaled, weight: { length: matrix.rows, memory: weights.memory }, squares: squares.memory };
      linear(context, target, x.rowRange(0, 1), { ...matrix, kernels: withKernels }, options, counters, { after });
      const result = await readRows(context, target);
      const products = await readRows(context, scaled);
      const shares = (await readRows(context, squares)).subarray(0, tilesOf(matrix));
      for (const activation of [weights, scaled, squares]) pool.giveBack(activation);
      const near = (actual: number, wanted: number) => Math.abs(actual - wanted) <= tolerance * (1 + Math.abs(wanted));
      const wrong = products.findIndex((v, i) => !near(v, result[i] * weight[i]));
      const found = shares.reduce((sum, share) => sum + share, 0);
      if (wrong < 0 && near(found, sumOfSquares(result))) return true;
      problems.push(`${name} before a norm gave ${products[wrong]} and squares of ${found}`);
      return false;
    },

    async embedWorks(): Promise<boolean> {
      const { rows } = matrix.parts[0];
      const ids = Uint32Array.of(0, 1, 31, rows - 37, rows - 1);
      const target = out.columns(0, cols).rowRange(0, ids.length);
      lookUp(context, target, matrix, ids);
      const result = await readRows(context, target);
      const wrong = result.findIndex((v, i) => v !== parts[0].values[ids[Math.floor(i / cols)] * cols + (i % cols)]);
      if (wrong >= 0) problems.push(`${kernels.embed.name} gave ${result[wrong]}`);
      return wrong < 0;
    },

    release(): void {
      for (const activation of [xAndUp, out]) pool.giveBack(activation);
      for (const { memory } of matrix.chunks) context.recorder.freeLater(memory);
    },
  };
}

const sumOfSquares = (values: Float32Array): number => values.reduce((sum, v) => sum + v * v, 0);

/** One row x as `LinearOptions.gate` turns it. */
function gated(x: Float32Array, ups: Float32Array, gate: LinearOptions["gate"]): Float32Array {
  if (gate === undefined) return x;
  const { f, gateThreshold = 0 } = gate;
  return x.map((v, c) => {
    const activated = activationFunctions[f](v);
    return Math.abs(activated) < gateThreshold ? 0 : activated * ups[c];
  });
}

/** A product x·Wᵀ as a kernel gave it, and what it was made of. */
export interface CheckedProduct {
  /** f32 [rows, sum of the parts' rows] */
  result: Float32Array;
  /** x, f32, at least [rows, cols] */
  inputs: Float32Array;
  rows: number;
  cols: number;
  /** Values: f32 [part.rows, cols]. */
  parts: readonly { rowStart: number; rows: number; values: Float32Array }[];
  /** One per part; x counts as 0 where |x| is not above it. */
  thresholds?: readonly number[];
}

/** What is wrong with a product: the first number further from the exact one than a share of the sizes of its terms. */
export function wrongProduct(product: CheckedProduct, share = tolerance): string | undefined {
  const { result, inputs, rows, cols, parts, thresholds } = product;
  const width = parts.reduce((sum, part) => sum + part.rows, 0);
  for (let r = 0; r < rows; r++) {
    for (const [p, part] of parts.entries()) {
      const threshold = thresholds === undefined ? -1 : Math.fround(thresholds[p]);
      for (let j = 0; j < part.rows; j++) {
        let [sum, size] = [0, 0];
        for (let c = 0; c < cols; c++) {
          const x = inputs[r * cols + c];
          const term = Math.abs(x) > threshold ? x * part.values[j * cols + c] : 0;
          sum += term;
          size += Math.abs(term);
        }
        const actual = result[r * width + part.rowStart + j];
        if (!(Math.abs(actual - sum) <= share * size)) return `gave ${actual} for ${sum}`;
      }
    }
  }
  return undefined;
}

export function source(name: string, values: Float32Array, rows: number, cols: number): RowSource {
  const bytes = new Uint8Array(values.buffer);
  const read = async (start: number, count: number, into: Uint8Array) =>
    into.set(bytes.subarray(start * cols * 4, (start + count) * cols * 4));
  return { name, rows, cols, dtype: "F32", read };
}

/**
 * Runs every operation but the products on small known cases.
 * @throws DeviceError naming the operations that this device gets wrong
 */
export async function checkOperations(b: Backend): Promise<void> {
  const random = new Random(2);
  const numbers = (count: number) => Float32Array.from({ length: count }, () => random.normal());
  const wrong: string[] = [];
  const compare = (name: string, actual: ArrayLike<number>, expected: ArrayLike<number>) => {
    const at = Array.from(expected).findIndex((e, i) => !(Math.abs(actual[i] - e) <= tolerance * (1 + Math.abs(e))));
    if (at >= 0) wrong.push(`${name} gave ${actual[at]} for ${expected[at]}`);
  };
  const upload = (rows: number, values: Float32Array) => {
    const activation = b.allocate(rows, values.length / rows);
    b.write(activation, values);
    return activation;
  };

  const [rows, cols] = [3, 320];
  const [a, c] = [numbers(rows * cols), numbers(rows * cols)];
  const [x, y, out] = [upload(rows, a), upload(rows, c), b.allocate(rows, cols)];
  const fresh = async (run: () => void) => {
    b.write(out, a);
    run();
    return b.read(out);
  };

  compare(
    "add",
    await fresh(() => b.add(out, y)),
    a.map((v, i) => v + c[i]),
  );
  for (const f of Object.keys(activationFunctions) as ActivationFunction[]) {
    const expected = a.map((v, i) => activationFunctions[f](v) * c[i]);
    compare(`gatedActivation ${f}`, await fresh(() => b.gatedActivation(out, x, y, f)), expected);
  }
  for (const width of [cols, 32]) {
    const weight = c.subarray(0, width);
    const expected = a.map((v, i) => {
      const run = a.subarray(i - (i % width), i - (i % width) + width);
      return (v / Math.sqrt(run.reduce((sum, r) => sum + r * r, 0) / width + 1e-5)) * weight[i % width];
    });
    compare("rmsNorm", await fresh(() => b.rmsNorm(out, x, b.loadVector(weight), 1e-5)), expected);
  }
  const gram = upload(cols, new Float32Array(cols * cols));
  b.addGram?.(gram, x);
  const sums = await b.read(gram);
  const upper = Array.from({ length: cols * cols }, (_, i) => i).filter((i) => i % cols >= Math.floor(i / cols));
  compare(
    "addGram",
    upper.map((i) => sums[i]),
    upper.map((i) => dotOfColumns(a, cols, Math.floor(i / cols), i % cols)),
  );
  b.release(gram);
  const [top] = await b.topK(x.rowRange(1, 1), 3);
  compare(
    "topK",
    top.values,
    a
      .slice(cols, 2 * cols)
      .sort()
      .reverse()
      .slice(0, 3),
  );

  // Rotation, then attention of five rows and of one over a cache of 150 positions.
  const [headDim, kvHeads, queryHeads, positions, tokens] = [32, 2, 4, 150, 5];
  const scale = 1 / Math.sqrt(headDim);
  const angles = numbers((positions * headDim) / 2);
  const table = b.loadRope(angles.map(Math.cos), angles.map(Math.sin), headDim);
  const [qs, ks, vs] = [tokens * queryHeads, positions * kvHeads, positions * kvHeads].map((n) => numbers(n * headDim));
  const [q, k, v] = [upload(tokens, qs), upload(positions, ks), upload(positions, vs)];
  b.rope(k, table, 0);
  const rotated = rotate(ks, angles, kvHeads, headDim);
  compare("rope", await b.read(k), rotated);
  using cache = b.createKvCache({ layers: 1, kvHeads, headDim, capacity: positions });
  b.appendKv(cache, 0, k, v, 0);
  const attended = b.allocate(tokens, queryHeads * headDim);
  const start = positions - tokens;
  const expected = attend(qs, rotated, vs, { queryHeads, kvHeads, headDim, scale, start });
  b.attention(attended, q, cache, 0, { queryHeads, scale, start });
  compare("attention", await b.read(attended), expected);
  const [lastOut, lastQ] = [attended, q].map((activation) => activation.rowRange(tokens - 1, 1));
  b.attention(lastOut, lastQ, cache, 0, { queryHeads, scale, start: positions - 1 });
  compare("attention of one row", await b.read(lastOut), expected.subarray(-lastOut.cols));
  if (b.rotatedAttention !== undefined) {
    // The last position once more, from what is not rotated.
    const last = positions - 1;
    const lastQs = rotate(qs.slice(-lastQ.cols), angles.subarray((last * headDim) / 2), queryHeads, headDim);
    const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
    const qkv = upload(1, Float32Array.of(...qs.slice(-queryWidth), ...ks.slice(-kvWidth), ...vs.slice(-kvWidth)));
    const [q, k, v] = [0, queryWidth, queryWidth + kvWidth].map((at, i) =>
      qkv.columns(at, i === 0 ? queryWidth : kvWidth),
    );
    const rows = { q, k, v };
    b.rotatedAttention(lastOut, rows, table, cache, 0, { queryHeads, scale, start: last });
    const wanted = attend(lastQs, rotated, vs, { queryHeads, kvHeads, headDim, scale, start: last });
    compare("rotatedAttention", await b.read(lastOut), wanted);
    b.release(qkv);
  }

  for (const activation of [q, k, v, attended]) b.release(activation);
  for (const activation of [x, y, out]) b.release(activation);
  if (wrong.length > 0) throw new DeviceError(`this GPU computes wrongly: ${wrong.join("; ")}`);
}

/** Product of two columns of f32 [rows, cols]. */
function dotOfColumns(x: Float32Array, cols: number, i: number, j: number): number {
  let sum = 0;
  for (let row = 0; row < x.length; row += cols) sum += x[row + i] * x[row + j];
  return sum;
}

/** See `Backend.rope`; positions from 0, `heads` heads in a row. */
function rotate(x: Float32Array, angles: Float32Array, heads: number, headDim: number): Float32Array {
  const half = headDim / 2;
  return x.map((value, i) => {
    const d = i % headDim;
    const angle = angles[Math.floor(i / (heads * headDim)) * half + (d % half)];
    const other = d < half ? -x[i + half] : x[i - half];
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

/** See `Backend.attention`, without a window. */
function attend(
  q: Float32Array,
  keys: Float32Array,
  values: Float32Array,
  shape: { queryHeads: number; kvHeads: number; headDim: number; scale: number; start: number },
): Float32Array {
  const { queryHeads, kvHeads, headDim, scale, start } = shape;
  const out = new Float32Array(q.length);
  for (let begin = 0; begin < q.length; begin += headDim) {
    const head = (begin / headDim) % queryHeads;
    const position = start + Math.floor(begin / headDim / queryHeads);
    const at = (p: number) => (p * kvHeads + Math.floor((head * kvHeads) / queryHeads)) * headDim;
    const weights = Array.from({ length: position + 1 }, (_, p) => {
      let score = 0;
      for (let d = 0; d < headDim; d++) score += q[begin + d] * keys[at(p) + d];
      return Math.exp(score * scale);
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let d = 0; d < headDim; d++) {
      out[begin + d] = weights.reduce((sum, weight, p) => sum + (weight / total) * values[at(p) + d], 0);
    }
  }
  return out;
}
