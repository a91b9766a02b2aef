import { activationFunctions, DeviceError, Random } from "../../core/index.js";
import { type WeightFormatId, weightFormats } from "../../pack/index.js";
import type { LinearOptions, RowSource } from "../backend.js";
import { zeroCounters } from "../counters.js";
import type { Context } from "./context.js";
import { gpuFormat } from "./formats.js";
import { linear } from "./linear.js";
import { lookUp } from "./lookUp.js";
import { type FormatKernels, loadMatrix } from "./matrix.js";
import { tilesOf } from "./productParts.js";
import { type ActivationPool, readRows } from "./storage.js";
import type { MatvecInput } from "./wgsl/matvecInputs.js";

/** How far a result may be from the exact one, as a share of the sizes of its terms. */
export const tolerance = 1e-4;

/**
 * What `run` gives; undefined, and why in `problems`, when a kernel does not compile here.
 * @throws DeviceError for a device that went
 */
export async function attempt<T>(
  { device }: Context,
  name: string,
  problems: string[],
  run: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    device.throwIfGone();
    if (!(error instanceof DeviceError)) throw error;
    problems.push(`${name}: ${error.message}`);
    return undefined;
  }
}

/** A stack of two parts, the first of two row tiles, the second of less than one; columns that do not fill a group. */
export async function testProduct(
  context: Context,
  pool: ActivationPool,
  formatId: WeightFormatId,
  kernels: FormatKernels,
) {
  const format = weightFormats[formatId];
  const random = new Random(1);
  const cols = 200;
  const thresholds = [0.4, 0.9];
  const counters = zeroCounters();
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
      const result = await attempt(context, name, problems, () => {
        linear(context, target, x.rowRange(0, rows), { ...matrix, kernels: withKernels }, options, counters);
        return readRows(context, target);
      });
      if (result === undefined) return false;
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
    async worksAfterNorm(
      name: string,
      withKernels: FormatKernels,
      options: LinearOptions,
      share = tolerance,
    ): Promise<boolean> {
      const epsilon = 0.1;
      const row = inputs.subarray(0, cols);
      const total = sumOfSquares(row);
      const shares = pool.take(1, 4);
      context.device.gpu.queue.writeBuffer(shares.memory.buffer, 0, Float32Array.of(0.25 * total, 0.75 * total));
      const target = out.columns(0, matrix.rows).rowRange(0, 1);
      const before = { memory: shares.memory, count: 2, epsilon };
      linear(context, target, x.rowRange(0, 1), { ...matrix, kernels: withKernels }, options, counters, { before });
      const factor = 1 / Math.sqrt(total / cols + epsilon);
      const product = {
        result: await readRows(context, target),
        inputs: row.map((v) => v * factor),
        rows: 1,
        cols,
        parts: expected,
        thresholds: options.thresholds,
      };
      const problem = wrongProduct(product, share);
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
