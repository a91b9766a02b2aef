import { DeviceError, UsageError } from "../../core/index.js";
import { Dispatches } from "./dispatches.js";
import { openGpu } from "./gpu.js";
import type { GpuEntry } from "./gpuEntry.js";
import type { GpuMemory } from "./gpuMemory.js";
import type { Turns } from "./naps.js";
import type { TensorShape } from "./wgsl/matmulTensor.js";

export type { GpuMemory } from "./gpuMemory.js";

/**
 * Declarations that merge with those of WebGPU where an application has them (TypeScript's own or `@webgpu/types`), and
 * stand for them where it has not: whoever never touches a GPU needs no further types to compile against this package.
 */
declare global {
  interface GPUAdapter {}
  interface GPUAdapterInfo {}
  interface GPUBindGroup {}
  interface GPUBuffer {}
  interface GPUComputePipeline {}
  interface GPUDevice {}
  interface GPUSupportedLimits {}
}

/** Not yet in the types of WebGPU. */
type MatrixInfo = GPUAdapterInfo & {
  subgroupMatrixConfigs?: Iterable<TensorShape & { componentType: string; resultComponentType: string }>;
};

const wantedFeatures = [
  "subgroups",
  "shader-f16",
  "timestamp-query",
  "chromium-experimental-subgroup-matrix",
] as GPUFeatureName[];

const wantedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

export type Limits = Readonly<Record<(typeof wantedLimits)[number] | "maxComputeWorkgroupsPerDimension", number>>;

/**
 * The GPU device and its memory. Errors of a device arrive later than the call that caused them; they are kept here and
 * thrown at the next wait.
 */
export class Device implements Disposable {
  readonly gpu: GPUDevice;
  /** Copied: asking the device itself, as every dispatch does, takes as long as recording one. */
  readonly limits: Limits;
  readonly features: ReadonlySet<string>;
  readonly adapterInfo: GPUAdapterInfo;
  /** A GPU played by the CPU: threads that wait for one another are dear, and it has few cores. */
  readonly isSoftware: boolean;
  /** See `GpuEntry`. */
  readonly turns: Turns | undefined;
  readonly #entry: GpuEntry;
  /** Held because Dawn frees an adapter that nobody refers to. */
  readonly #adapter: GPUAdapter;
  readonly dispatches: Dispatches;
  #nextId = 0;
  #lost: DeviceError | undefined;
  #failure: DeviceError | undefined;
  #disposed = false;

  private constructor(entry: GpuEntry, adapter: GPUAdapter, gpu: GPUDevice) {
    this.#entry = entry;
    this.#adapter = adapter;
    this.gpu = gpu;
    const { maxComputeWorkgroupsPerDimension } = gpu.limits;
    this.limits = { ...limitsOf(gpu.limits), maxComputeWorkgroupsPerDimension };
    this.features = gpu.features as ReadonlySet<string>;
    this.adapterInfo = adapter.info;
    this.isSoftware = adapter.info.isFallbackAdapter;
    this.turns = entry.turns;
    this.dispatches = new Dispatches(gpu, usage.uniform | usage.copyDst);
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault(); // or it is written to the console
      this.fail(event.error);
    });
    // The promise settles only when the device goes; what it brings is kept for the next call.
    gpu.lost.then(
      ({ message }) => {
        this.#lost = new DeviceError(
          `the GPU device was lost: ${message || "no reason given"}; open the backend again`,
        );
      },
      () => {},
    );
  }

  /** @throws DeviceError when there is no GPU, or no WebGPU. */
  static async open(): Promise<Device> {
    const entry = await openGpu();
    try {
      const adapter = await entry.gpu.requestAdapter({ powerPreference: "high-performance" });
      if (adapter === null) throw new DeviceError(noAdapter());
      const requiredFeatures = wantedFeatures.filter((feature) => adapter.features.has(feature));
      const requiredLimits = limitsOf(adapter.limits);
      const gpu = await adapter.requestDevice({ requiredFeatures, requiredLimits });
      return new Device(entry, adapter, gpu);
    } catch (cause) {
      entry.release();
      if (cause instanceof DeviceError) throw cause;
      throw new DeviceError(`the GPU could not be opened: ${(cause as Error).message}`, { cause });
    }
  }

  /** Threads of every subgroup; undefined where there are none, or of several sizes. */
  get subgroupSize(): number | undefined {
    const { subgroupMinSize, subgroupMaxSize } = this.adapterInfo;
    return this.features.has("subgroups") && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : undefined;
  }

  /** Whether every subgroup has 32 threads. */
  get subgroups32(): boolean {
    return this.subgroupSize === 32;
  }

  /** What the matrix units multiply of f16 and sum in f32; undefined where there are none, or not in subgroups of 32. */
  get tensorShape(): TensorShape | undefined {
    const needed = ["shader-f16", "chromium-experimental-subgroup-matrix"];
    if (!this.subgroups32 || !needed.every((feature) => this.features.has(feature))) return undefined;
    const shapes = [...((this.adapterInfo as MatrixInfo).subgroupMatrixConfigs ?? [])];
    const fitting = shapes.filter(
      ({ componentType, resultComponentType, M, N, K }) =>
        componentType === "f16" && resultComponentType === "f32" && [M, N, K].every((n) => n === 8 || n === 16),
    );
    return fitting.sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K)[0];
  }

  /** A zero-filled buffer. A size beyond the device's limit or memory is reported by the next wait. */
  allocate(byteLength: number, usage: number, label: string): GpuMemory {
    this.throwIfGone();
    const size = Math.max(16, Math.ceil(byteLength / 16) * 16);
    if (size > this.limits.maxBufferSize) {
      throw new DeviceError(`${label}: ${size} bytes; this GPU takes buffers of at most ${this.limits.maxBufferSize}`);
    }
    const buffer = this.gpu.createBuffer({ size, usage, label });
    return { id: this.#nextId++, buffer, byteLength: size };
  }

  /** Destroys a buffer that no unsubmitted work uses, and forgets the bind groups that hold it. */
  free(memory: GpuMemory): void {
    memory.buffer.destroy();
    this.dispatches.forget(memory);
  }

  /** Runs `allocations`; @throws DeviceError when they do not fit the GPU's memory. */
  async withinMemory<T>(what: string, allocations: () => T): Promise<T> {
    this.gpu.pushErrorScope("out-of-memory");
    let result: T;
    try {
      result = allocations();
    } finally {
      const error = await this.gpu.popErrorScope();
      // biome-ignore lint/correctness/noUnsafeFinally: out of memory explains whatever else went wrong.
      if (error !== null) throw new DeviceError(`the GPU has no memory left for ${what}: ${error.message}`);
    }
    return result;
  }

  /** Keeps the first failure for the next wait. */
  fail(error: { message: string }): void {
    this.#failure ??= new DeviceError(`the GPU reported: ${error.message}`, { cause: error });
  }

  /** @throws DeviceError once for every failure since the last call, and always after the device was lost. */
  throwIfFailed(): void {
    this.throwIfGone();
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  throwIfGone(): void {
    if (this.#disposed) throw new UsageError("the backend was disposed");
    if (this.#lost !== undefined) throw this.#lost;
  }

  get adapter(): GPUAdapter {
    return this.#adapter;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.dispatches.clear();
    this.gpu.destroy();
    this.#entry.release();
  }
}

const limitsOf = (limits: GPUSupportedLimits) =>
  Object.fromEntries(wantedLimits.map((name) => [name, limits[name]])) as Record<(typeof wantedLimits)[number], number>;

/** GPUBufferUsage; the named constants are globals that Node does not have. */
export const usage = { mapRead: 1, copySrc: 4, copyDst: 8, uniform: 64, storage: 128, queryResolve: 512 } as const;

const noAdapter = () =>
  globalThis.process?.versions?.node === undefined
    ? "WebGPU found no GPU: the machine has none that this browser uses, or the browser's hardware acceleration is switched off"
    : "WebGPU found no GPU. On Linux it needs a Vulkan driver and its loader (libvulkan1)";

/** In words: what its arithmetic depends on. */
export function describeDevice({ adapterInfo, features }: Device): string {
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = adapterInfo;
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ") || "unnamed GPU";
  const subgroups = features.has("subgroups") ? `subgroups of ${subgroupMinSize}–${subgroupMaxSize}` : "no subgroups";
  return `WebGPU on ${name}, ${subgroups}, ${features.has("shader-f16") ? "f16" : "no f16"}`;
}
