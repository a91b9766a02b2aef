import { DeviceError, UsageError } from "../../core/index.js";
import { openGpu } from "./gpu.js";
import type { GpuEntry } from "./gpuEntry.js";
import { type BufferSlot, type Kernel, paramBytes, sharedAccess, wgsl } from "./kernel.js";
import type { TensorShape } from "./wgsl/matmulTensor.js";

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

/** A buffer and the number by which bind groups are found again. */
export interface GpuMemory {
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly byteLength: number;
}

/** One kernel compiled for one pattern of shared buffers. */
interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly layoutKey: string;
}

/** What a dispatch is recorded with. */
interface Prepared {
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
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

/**
 * The GPU device with what is made once and used many times: pipelines, bind-group layouts, bind groups. Errors of a
 * device arrive later than the call that caused them; they are kept here and thrown at the next wait.
 */
export class Device implements Disposable {
  readonly gpu: GPUDevice;
  readonly limits: GPUSupportedLimits;
  readonly features: ReadonlySet<string>;
  readonly adapterInfo: GPUAdapterInfo;
  /** A GPU played by the CPU: threads that wait for one another are dear, and it has few cores. */
  readonly isSoftware: boolean;
  readonly #entry: GpuEntry;
  /** Held because Dawn frees an adapter that nobody refers to. */
  readonly #adapter: GPUAdapter;
  readonly #compiled = new Map<string, Compiled>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #bindGroups = new Map<string, GPUBindGroup>();
  /** By kernel, then by the ids of its buffers: what `prepare` found before. */
  readonly #prepared = new Map<Kernel, Map<string, Prepared>>();
  readonly #paramLayout: GPUBindGroupLayout;
  #nextId = 0;
  #lost: DeviceError | undefined;
  #failure: DeviceError | undefined;
  #disposed = false;

  private constructor(entry: GpuEntry, adapter: GPUAdapter, gpu: GPUDevice) {
    this.#entry = entry;
    this.#adapter = adapter;
    this.gpu = gpu;
    this.limits = gpu.limits;
    this.features = gpu.features as ReadonlySet<string>;
    this.adapterInfo = adapter.info;
    this.isSoftware = adapter.info.isFallbackAdapter;
    this.#paramLayout = gpu.createBindGroupLayout({
      entries: [
        {
          binding: 0,
          visibility: computeStage,
          buffer: { type: "uniform", minBindingSize: paramBytes },
        },
      ],
    });
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
      const requiredLimits = Object.fromEntries(wantedLimits.map((name) => [name, adapter.limits[name]]));
      const gpu = await adapter.requestDevice({ requiredFeatures, requiredLimits });
      return new Device(entry, adapter, gpu);
    } catch (cause) {
      entry.release();
      if (cause instanceof DeviceError) throw cause;
      throw new DeviceError(`the GPU could not be opened: ${(cause as Error).message}`, { cause });
    }
  }

  /** Whether every subgroup has 32 threads. */
  get subgroups32(): boolean {
    const { subgroupMinSize, subgroupMaxSize } = this.adapterInfo;
    return this.features.has("subgroups") && subgroupMinSize === 32 && subgroupMaxSize === 32;
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
    for (const key of this.#bindGroups.keys()) {
      if (key.split(":")[1].split(",").includes(`${memory.id}`)) this.#bindGroups.delete(key);
    }
    for (const byIds of this.#prepared.values()) {
      for (const key of byIds.keys()) if (key.split(",").includes(`${memory.id}`)) byIds.delete(key);
    }
  }

  /** The pipeline of a kernel for these buffers (one per slot) and the bind group that holds them. */
  prepare(kernel: Kernel, buffers: readonly GpuMemory[]): Prepared {
    let byIds = this.#prepared.get(kernel);
    if (byIds === undefined) {
      byIds = new Map();
      this.#prepared.set(kernel, byIds);
    }
    let ids = "";
    for (const { id } of buffers) ids += `${id},`;
    let prepared = byIds.get(ids);
    if (prepared === undefined) {
      prepared = this.#prepare(kernel, buffers);
      byIds.set(ids, prepared);
    }
    return prepared;
  }

  #prepare(kernel: Kernel, buffers: readonly GpuMemory[]): Prepared {
    const sharedWith = buffers.map((memory) => buffers.indexOf(memory));
    const compiled = this.#compile(kernel, sharedWith);
    const unique = buffers.filter((_, i) => sharedWith[i] === i);
    const key = `${compiled.layoutKey}:${unique.map((memory) => memory.id).join(",")}`;
    let bindGroup = this.#bindGroups.get(key);
    if (bindGroup === undefined) {
      bindGroup = this.gpu.createBindGroup({
        layout: compiled.layout,
        entries: unique.map(({ buffer }, binding) => ({ binding, resource: { buffer } })),
      });
      this.#bindGroups.set(key, bindGroup);
    }
    return { pipeline: compiled.pipeline, bindGroup };
  }

  /** The bind group of one block of the parameter ring. */
  paramGroup(ring: GpuMemory, offset: number): GPUBindGroup {
    return this.gpu.createBindGroup({
      layout: this.#paramLayout,
      entries: [{ binding: 0, resource: { buffer: ring.buffer, offset, size: paramBytes } }],
    });
  }

  #compile(kernel: Kernel, sharedWith: readonly number[]): Compiled {
    const key = `${kernel.name}/${sharedWith.join("")}`;
    let compiled = this.#compiled.get(key);
    if (compiled === undefined) {
      const slots = Object.entries(kernel.buffers);
      const access = slots.flatMap((_, i) => (sharedWith[i] === i ? [sharedAccess(slots, sharedWith, i)] : []));
      const layoutKey = access.map((a) => (a === "read" ? "r" : "w")).join("");
      const layout = this.#layout(layoutKey, access);
      const module = this.gpu.createShaderModule({ code: wgsl(kernel, sharedWith), label: key });
      const pipeline = this.gpu.createComputePipeline({
        label: key,
        layout: this.gpu.createPipelineLayout({ bindGroupLayouts: [this.#paramLayout, layout] }),
        compute: { module, entryPoint: "main" },
      });
      compiled = { pipeline, layout, layoutKey };
      this.#compiled.set(key, compiled);
    }
    return compiled;
  }

  #layout(key: string, access: readonly BufferSlot["access"][]): GPUBindGroupLayout {
    let layout = this.#layouts.get(key);
    if (layout === undefined) {
      layout = this.gpu.createBindGroupLayout({
        entries: access.map((a, binding) => ({
          binding,
          visibility: computeStage,
          buffer: { type: a === "read" ? "read-only-storage" : "storage" },
        })),
      });
      this.#layouts.set(key, layout);
    }
    return layout;
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
    this.#compiled.clear();
    this.#layouts.clear();
    this.#bindGroups.clear();
    this.#prepared.clear();
    this.gpu.destroy();
    this.#entry.release();
  }
}

/** GPUShaderStage.COMPUTE; the named constants are globals that Node does not have. */
const computeStage = 4;

/** GPUBufferUsage, for the same reason. */
export const usage = { mapRead: 1, copySrc: 4, copyDst: 8, uniform: 64, storage: 128 } as const;

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
