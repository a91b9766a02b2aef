import { spawnSync } from "node:child_process";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DeviceError } from "../../src/core/index.js";
import type { Backend, LinearOptions } from "../../src/kernels/index.js";
import { WebGpuBackend } from "../../src/kernels/webgpu/backend.js";
import { Context } from "../../src/kernels/webgpu/context.js";
import { Device } from "../../src/kernels/webgpu/device.js";
import type { Dispatches } from "../../src/kernels/webgpu/dispatches.js";
import { checkFormat } from "../../src/kernels/webgpu/selfCheck.js";
import { ActivationPool } from "../../src/kernels/webgpu/storage.js";
import { denseFormats, expectWithin, f32Tolerances, loadStack, normals, upload } from "../contract/harness.js";
import * as oracle from "../contract/oracle.js";
import { ensureBuilt } from "../support/rarefy.js";
import { onOwnDevice } from "../support/sharedDevice.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await Device.open().then(
  (device) => void device[Symbol.dispose](),
  (error: Error) => error.message,
);

describe.skipIf(unavailable !== undefined)(`WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`, () => {
  let device: Device;
  let backend: Backend;
  beforeEach(async () => {
    device = await Device.open();
    backend = new WebGpuBackend(device);
  });
  afterEach(() => backend[Symbol.dispose]());

  /** Makes the device pretend. */
  const pretend = (name: keyof Device, value: unknown) => Object.defineProperty(device, name, { value });

  /** Every kernel that `matches` gets its WGSL changed. */
  const sabotage = (matches: RegExp, from: string, to: string) => {
    const { dispatches } = device;
    const next = dispatches.next.bind(dispatches);
    const sabotaged: Dispatches["next"] = (call) => {
      const { kernel } = call;
      if (!matches.test(kernel.name)) return next(call);
      const code = kernel.code.replace(from, to);
      expect(code).not.toBe(kernel.code);
      return next({ ...call, kernel: { ...kernel, name: `${kernel.name} sabotaged`, code } });
    };
    Object.defineProperty(dispatches, "next", { value: sabotaged });
  };

  /** One product of a stack of parts, dense or sparse, against the f64 oracle. */
  const expectProduct = async (format: (typeof denseFormats)[number], rows: number, options: LinearOptions) => {
    const partRows = [300, 100];
    const cols = 160;
    const w = await loadStack(backend, format, partRows, cols, 3);
    const x = normals(4, rows * cols);
    const xs = upload(backend, rows, cols, x);
    const out = backend.allocate(rows, w.handle.rows);
    backend.linear(out, xs, w.handle, options);
    const { thresholds } = options;
    const expected = oracle.linear({ x, w: w.values, cols, partRows, thresholds }, f32Tolerances.linear[format]);
    expectWithin(await backend.read(out), expected, `${format}, ${rows} rows`);
  };

  it.each(denseFormats)("%s: a matrix larger than a binding lies in several buffers", async (format) => {
    const { limits } = device;
    pretend("limits", {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: 120_000,
      maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    });
    let buffers = 0;
    const allocate = device.allocate.bind(device);
    pretend("allocate", (byteLength: number, usage: number, label: string) => {
      if (label.startsWith("part")) {
        buffers++;
        expect(byteLength).toBeLessThanOrEqual(120_000);
      }
      return allocate(byteLength, usage, label);
    });
    const thresholds = [0.2, 0.8];
    for (const rows of [1, 5]) {
      await expectProduct(format, rows, {});
      await expectProduct(format, rows, { thresholds });
    }
    buffers = 0;
    const table = await loadStack(backend, format, [4000], 160, 9);
    expect(buffers).toBeGreaterThanOrEqual(Math.max(2, table.handle.byteLength / 120_000));
    const out = backend.allocate(3, 160);
    backend.embed(out, table.handle, Uint32Array.of(3999, 0, 1000));
    const rows = [3999, 0, 1000].map((id) => [...table.values.subarray(id * 160, (id + 1) * 160)]);
    expect([...(await backend.read(out))]).toEqual(rows.flat());
  });

  it("tells the calls of WebGPU since they were last asked for, and how long the GPU computed", async () => {
    const x = upload(backend, 1, 64, normals(1, 64));
    await backend.flush();
    backend.takeGpuWork?.();
    const twice = async () => {
      backend.add(x, x);
      backend.add(x, x);
      await backend.flush();
    };
    await twice();
    expect(backend.takeGpuWork?.()).toEqual({ dispatches: 2, passes: 1, submits: 1 });
    expect(backend.takeGpuWork?.()).toEqual({ dispatches: 0, passes: 0, submits: 0 });
    const gpuMs = await backend.timeGpu?.(twice);
    if (device.features.has("timestamp-query")) expect(gpuMs).toBeGreaterThan(0);
    else expect(gpuMs).toBeUndefined();
    const kernels = await (backend as WebGpuBackend).timeKernels(twice);
    expect(kernels?.map(({ dispatches }) => dispatches) ?? [2]).toEqual([2]);
  });

  it.each(denseFormats)("%s: the kernels of a real GPU compute right on this device too", async (format) => {
    pretend("isSoftware", false);
    const context = new Context(device);
    const { kernels, problems } = await checkFormat(context, new ActivationPool(device, context.recorder), format);
    expect(problems).toEqual([]);
    expect(kernels.listedColumns.dense).toBeGreaterThan(256);
    expect(kernels.listedColumns.sparse).toBeGreaterThan(256);
  });

  it.each(["q8", "q4"] as const)("%s: takes the scales of the grid that weights lie on", async (format) => {
    const [rows, cols] = [150, 64];
    // Codes of few of the values that there are: a scale of their own would be another one.
    const scales = Float32Array.from({ length: rows * 2 }, (_, i) => 2 ** -(i % 5));
    const values = Float32Array.from({ length: rows * cols }, (_, i) => ((i * 7) % 4) * scales[Math.floor(i / 32)]);
    const bytes = new Uint8Array(values.buffer);
    const table = await backend.loadMatrix(
      [
        {
          name: "grid",
          rows,
          cols,
          dtype: "F32",
          read: async (start, count, into) => into.set(bytes.subarray(start * cols * 4, (start + count) * cols * 4)),
          scales: async (start, count, into) => into.set(scales.subarray(start * 2, (start + count) * 2)),
        },
      ],
      format,
    );
    const out = backend.allocate(2, cols);
    backend.embed(out, table, Uint32Array.of(1, 140));
    const expected = [1, 140].map((id) => [...values.subarray(id * cols, (id + 1) * cols)]);
    expect([...(await backend.read(out))]).toEqual(expected.flat());
  });

  it("a kernel that computes wrongly is left out with a message, and the operation falls back", async () => {
    sabotage(/^matvec bf16/, "var total = sum;", "var total = sum * 1.01;");
    await expectProduct("bf16", 1, {});
    await expectProduct("bf16", 1, { thresholds: [0.3, 0.6] });
    expect(backend.info.description).toContain("not used because wrong on this GPU: matvec bf16");
    expect(backend.info.description).toContain("sparse");
    expect(backend.info.description).not.toContain("matmul");
  });

  it("an operation that no kernel gets right is refused", async () => {
    sabotage(/^matmul q8/, "var total = sums[k];", "var total = sums[k] * 1.01;");
    await expect(loadStack(backend, "q8", [32], 32)).rejects.toThrow(DeviceError);
    await expectProduct("bf16", 1, {});
  });

  it("a lost device ends in DeviceError, and another backend can be opened", async () => {
    const device = await onOwnDevice(() => Device.open());
    using backend = new WebGpuBackend(device);
    const x = upload(backend, 1, 4, Float32Array.of(1, 2, 3, 4));
    await backend.flush();
    device.gpu.destroy();
    await device.gpu.lost;
    await expect(backend.read(x)).rejects.toThrow(DeviceError);
    expect(() => backend.allocate(1, 4)).toThrow("the GPU device was lost");
    using next = new WebGpuBackend(await Device.open());
    expect([...(await next.read(upload(next, 1, 4, Float32Array.of(5, 6, 7, 8))))]).toEqual([5, 6, 7, 8]);
  });

  it("an error that the GPU reports late is thrown by the next wait, once", async () => {
    device.gpu.createBuffer({ size: 16, usage: 3 });
    await expect(backend.flush()).rejects.toThrow(/the GPU reported: .+/s);
    await backend.flush();
  });

  it("a matrix that the GPU has no memory for ends in DeviceError and leaves nothing behind", async () => {
    await loadStack(backend, "f32", [8], 32);
    const { gpu } = device;
    const popErrorScope = gpu.popErrorScope.bind(gpu);
    const freed: string[] = [];
    const free = device.free.bind(device);
    pretend("free", (memory: Parameters<Device["free"]>[0]) => {
      freed.push(memory.buffer.label);
      free(memory);
    });
    gpu.popErrorScope = async () => {
      await popErrorScope();
      return { message: "out of memory" } as GPUError;
    };
    await expect(loadStack(backend, "f32", [8], 32)).rejects.toThrow("the GPU has no memory left for part0");
    gpu.popErrorScope = popErrorScope;
    expect(freed).toEqual(["part0"]);
    await expectProduct("f32", 1, {});
  });

  it("an activation or cache beyond the device's limits is refused", () => {
    const columns = 4 * (device.limits.maxStorageBufferBindingSize / 4);
    expect(() => backend.allocate(2, columns)).toThrow(DeviceError);
    const spec = {
      layers: [{ heads: 64, key: 256, value: 4 }],
      slots: device.limits.maxStorageBufferBindingSize / 2 ** 15,
    };
    expect(() => backend.createKvCache(spec)).toThrow("use a smaller capacity");
  });

  it("the process ends once the backend is disposed, and garbage collection does not take a live device", () => {
    ensureBuilt();
    const script = `
      import { openBackend } from "./dist/kernels/index.js";
      const backend = await openBackend("webgpu");
      for (let i = 0; i < 20; i++) {
        gc();
        const x = backend.allocate(1, 4);
        backend.write(x, Float32Array.of(i, 0, 0, 0));
        if ((await backend.read(x))[0] !== i) throw new Error("wrong");
        backend.release(x);
        await new Promise((resume) => setTimeout(resume, 5));
      }
      backend[Symbol.dispose]();
      console.log("done");`;
    const child = spawnSync(process.execPath, ["--expose-gc", "--input-type=module", "-e", script], {
      encoding: "utf8",
    });
    expect(child.stdout, child.stderr).toBe("done\n");
    expect(child.status).toBe(0);
  });
});
