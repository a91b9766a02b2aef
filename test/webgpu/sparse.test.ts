import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import type { Backend, LinearOptions, RowSource } from "../../src/kernels/index.js";
import { WebGpuBackend } from "../../src/kernels/webgpu/backend.js";
import { Device } from "../../src/kernels/webgpu/device.js";
import { sparseAccess } from "../../src/kernels/webgpu/wgsl/sparseAccess.js";
import { packSparse, type SparseFormatId, sparseFormats } from "../../src/pack/index.js";
import { normals, upload } from "../contract/harness.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await Device.open().then(
  (device) => void device[Symbol.dispose](),
  (error: Error) => error.message,
);

const ids = Object.keys(sparseAccess) as SparseFormatId[];

/** Weights of which at most two in every four inputs are not 0; `keep` of those that remain. */
function sparseWeights(seed: number, rows: number, cols: number, keep: number): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length: rows * cols }, (_, at) => {
    const left = at % 4 === Math.floor(at / 4) % 3 || at % 4 === 3;
    return left && random.uniform() < keep ? random.normal() : 0;
  });
}

function rowSource(name: string, values: Float32Array, rows: number, cols: number): RowSource {
  const bytes = new Uint8Array(values.buffer);
  return {
    name,
    rows,
    cols,
    dtype: "F32",
    read: async (start, count, into) => into.set(bytes.subarray(start * cols * 4, (start + count) * cols * 4)),
  };
}

describe.skipIf(unavailable !== undefined)(
  `weights without their zeros on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    let device: Device;
    let backend: Backend;
    beforeAll(async () => {
      device = await Device.open();
      backend = new WebGpuBackend(device);
    });
    afterAll(() => backend?.[Symbol.dispose]());

    /** A stack with what each part stands for, and its packed bytes. */
    async function load(format: SparseFormatId, partRows: readonly number[], cols: number, keep: number) {
      const parts = partRows.map((rows, i) => {
        const stored = sparseWeights(10 + i, rows, cols, keep);
        const packed = packSparse(sparseFormats[format], stored, rows, cols);
        const values = sparseFormats[format].unpack(packed, rows, cols);
        return { rows, packed, values, source: rowSource(`part${i}`, stored, rows, cols) };
      });
      const matrix = await backend.loadMatrix(
        parts.map((part) => part.source),
        format,
      );
      return { parts, matrix };
    }

    /** One product against f64 sums, with bias, on top of what was there. */
    async function expectProduct(stack: Awaited<ReturnType<typeof load>>, rows: number, options: LinearOptions) {
      const { parts, matrix } = stack;
      const { cols } = matrix;
      const [x, before, bias] = [normals(1, rows * cols), normals(2, rows * matrix.rows), normals(3, matrix.rows)];
      const out = upload(backend, rows, matrix.rows, before);
      const xs = upload(backend, rows, cols, x);
      backend.linear(out, xs, matrix, { ...options, bias: backend.loadVector(bias), accumulate: true });
      const result = await backend.read(out);
      for (let r = 0; r < rows; r++) {
        for (const [p, { values }] of parts.entries()) {
          const threshold = options.thresholds?.[p] ?? -1;
          for (let j = 0; j < parts[p].rows; j++) {
            const column = matrix.parts[p].rowStart + j;
            let sum = before[r * matrix.rows + column] + bias[column];
            let size = Math.abs(sum);
            for (let c = 0; c < cols; c++) {
              if (!(Math.abs(x[r * cols + c]) > Math.fround(threshold))) continue;
              const term = x[r * cols + c] * values[j * cols + c];
              sum += term;
              size += Math.abs(term);
            }
            const error = Math.abs(result[r * matrix.rows + column] - sum);
            if (!(error <= 2e-6 * size)) expect.fail(`row ${r}, part ${p}, output ${j}: ${error} off, of ${size}`);
          }
        }
      }
      for (const activation of [out, xs]) backend.release(activation);
      return x;
    }

    test.each(ids)("%s: products of one row and of several, dense and with thresholds", async (format) => {
      expect(backend.info.description).not.toContain("not used");
      for (const [partRows, cols, keep] of [
        [[300, 100], 160, 0.7],
        [[36], 68, 1],
        [[4, 260, 32], 1100, 0.2],
      ] as const) {
        const stack = await load(format, partRows, cols, keep);
        for (const rows of [1, 5]) {
          await expectProduct(stack, rows, {});
          await expectProduct(stack, rows, { thresholds: partRows.map((_, p) => 0.3 + 0.5 * p), sparseFromRow: 0 });
        }
      }
    });

    test.each(ids)("%s: counts the inputs skipped and the bytes read of the rest", async (format) => {
      const [partRows, cols, thresholds] = [[300, 100], 160, [0.4, 1.2]];
      const stack = await load(format, partRows, cols, 0.8);
      backend.takeCounters();
      const x = await expectProduct(stack, 1, { thresholds });
      const { inputs, inputsSkipped, weightBytesRead } = backend.takeCounters();
      const kept = thresholds.map((threshold) => (c: number) => Math.abs(x[c]) > threshold);
      const skipped = kept.flatMap((keeps) => Array.from({ length: cols }, (_, c) => c).filter((c) => !keeps(c)));
      expect(inputs).toBe(2 * cols);
      expect(inputsSkipped).toBe(skipped.length);
      const bytes = stack.parts.map(({ packed, rows }, p) =>
        sparseFormats[format].bytesRead(packed, rows, cols, kept[p]),
      );
      expect(weightBytesRead).toBe(bytes[0] + bytes[1]);
      await expectProduct(stack, 1, {});
      expect(backend.takeCounters()).toMatchObject({
        weightBytesRead: stack.matrix.byteLength,
        inputs: 0,
        inputsSkipped: 0,
      });
    });

    test.each(ids)("%s: rows are looked up", async (format) => {
      const { parts, matrix } = await load(format, [200], 96, 0.5);
      const out = backend.allocate(3, 96);
      backend.embed(out, matrix, Uint32Array.of(199, 0, 130));
      const rows = [199, 0, 130].map((id) => [...parts[0].values.subarray(id * 96, (id + 1) * 96)]);
      expect([...(await backend.read(out))]).toEqual(rows.flat());
      backend.release(out);
    });

    test("costs: every format of a value type has a finite one, which does not fall as the matrix grows", async () => {
      const { predictMs } = await backend.measureCosts!("q8");
      for (const format of ["q8", "bitmask-q8", "2:4-q8"] as const) {
        for (const density of [0.1, 0.25, 0.4, 0.75, 1]) {
          const [small, large] = [64, 65536].map((rows) => predictMs(format, rows, 4096, density));
          expect(small).toBeGreaterThanOrEqual(0);
          expect(large).toBeGreaterThanOrEqual(small);
          expect(large).toBeLessThan(Number.POSITIVE_INFINITY);
        }
      }
      expect(await backend.measureCosts!("q8")).toBe(await backend.measureCosts!("q8"));
    });

    test("a matrix larger than a binding lies in several buffers", async () => {
      const limits = device.limits;
      Object.defineProperty(device, "limits", { value: { ...limits, maxStorageBufferBindingSize: 60_000 } });
      try {
        for (const format of ["bitmask-q8", "2:4-bf16"] as const) {
          const stack = await load(format, [520, 200], 160, 0.9);
          for (const rows of [1, 5]) await expectProduct(stack, rows, { thresholds: [0.2, 0.6] });
        }
      } finally {
        Object.defineProperty(device, "limits", { value: limits });
      }
    });

    test("a matrix without the pattern is refused, and nothing is left behind", async () => {
      const held = backend.memoryBytes();
      const full = normals(1, 40 * 32);
      await expect(backend.loadMatrix([rowSource("full", full, 40, 32)], "2:4-q8")).rejects.toThrow(
        "more than two weights",
      );
      expect(backend.memoryBytes()).toBe(held);
    });
  },
);
