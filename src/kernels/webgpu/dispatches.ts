import type { GpuMemory } from "./gpuMemory.js";
import { type BufferSlot, type Kernel, paramBytes, sharedAccess, wgsl } from "./kernel.js";
import { made } from "./made.js";
import { Parameters, type Place } from "./parameters.js";

/** One kernel compiled for one pattern of shared buffers. */
interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** One dispatch as an operation asks for it. */
export interface Call {
  readonly kernel: Kernel;
  readonly params: Readonly<Record<string, number>>;
  /** One buffer for each slot of the kernel. */
  readonly slots: readonly GpuMemory[];
  /** In workgroups. */
  readonly grid: readonly [number, number?, number?];
  readonly table: ArrayLike<number>;
  /**
   * Of a call that is made again and again: how often its table was changed. What the GPU has been told of that version is
   * not compared again, nor are its buffers.
   */
  version?: number;
}

/** The buffers of a call, in the order of the kernel's slots. */
export function slotsOf<B extends string>(
  { buffers: slots }: Kernel<string, B>,
  buffers: Readonly<Record<NoInfer<B>, GpuMemory>>,
): GpuMemory[] {
  const memories: GpuMemory[] = [];
  for (const name in slots) memories.push(buffers[name]);
  return memories;
}

/** What a dispatch is recorded with. */
export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  /** Parameters and buffers. */
  readonly bindGroup: GPUBindGroup;
  readonly parameters: Place;
}

/** A dispatch, and the call whose parameters it has. */
interface Used extends Dispatch {
  by?: Call;
  version?: number;
}

/** A kernel with its buffers: as many dispatches as there were at most before one submit. */
interface Repeated {
  readonly compiled: Compiled;
  readonly unique: readonly GpuMemory[];
  readonly dispatches: Used[];
  /** How many of them are enqueued and not submitted. */
  enqueued: number;
}

/** Kernels whose first buffers are the same: by the id of the next one; and the kernel that has no further one. */
interface Branch {
  readonly next: Map<number, Branch>;
  repeated?: Repeated;
}

const newBranch = (): Branch => ({ next: new Map() });

/**
 * What is made once and used many times: pipelines, layouts of bind groups, and for every kernel with its buffers the bind
 * groups that hold them beside a place for parameters. A dispatch found again costs no more than the calls that record it.
 */
export class Dispatches {
  readonly #gpu: GPUDevice;
  readonly #parameters: Parameters;
  readonly #compiled = new Map<string, Compiled>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  /** By kernel, then by the ids of its buffers, one after the other: no key has to be put together for a dispatch. */
  readonly #repeated = new Map<Kernel, Branch>();
  /** Of calls that are made again; none holds a buffer that was forgotten. */
  #ofCalls = new WeakMap<Call, Repeated>();
  #enqueued: Repeated[] = [];

  /** @param parameterUsage of the buffers that hold parameters */
  constructor(gpu: GPUDevice, parameterUsage: number) {
    this.#gpu = gpu;
    this.#parameters = new Parameters(gpu, parameterUsage);
  }

  /** The next dispatch of a call's kernel with its buffers, which has its parameters from now on. */
  next(call: Call): Dispatch {
    const { version } = call;
    const repeated = version === undefined ? this.#find(call) : made(this.#ofCalls, call, () => this.#find(call));
    if (repeated.enqueued === 0) this.#enqueued.push(repeated);
    const index = repeated.enqueued++;
    repeated.dispatches[index] ??= this.#create(repeated);
    const dispatch = repeated.dispatches[index];
    if (version === undefined || dispatch.by !== call || dispatch.version !== version) {
      this.#parameters.write(dispatch.parameters, call.kernel.params, call.params, call.table);
      dispatch.by = call;
      dispatch.version = version;
    }
    return dispatch;
  }

  /** Sends parameters. What was enqueued is about to be submitted, and may be enqueued again. */
  submitting(): void {
    this.#parameters.upload();
    for (const repeated of this.#enqueued) repeated.enqueued = 0;
    this.#enqueued = [];
  }

  /** Forgets the bind groups that hold a buffer. Nothing enqueued may use it. */
  forget({ id }: GpuMemory): void {
    this.#ofCalls = new WeakMap();
    for (const [kernel, branch] of this.#repeated) if (this.#prune(branch, id)) this.#repeated.delete(kernel);
  }

  /** @returns whether nothing is left */
  #prune({ next, repeated }: Branch, id: number): boolean {
    for (const [held, branch] of next) {
      if (held === id) this.#giveBack(branch);
      if (held === id || this.#prune(branch, id)) next.delete(held);
    }
    return next.size === 0 && repeated === undefined;
  }

  #giveBack({ next, repeated }: Branch): void {
    for (const { parameters } of repeated?.dispatches ?? []) this.#parameters.giveBack(parameters);
    for (const branch of next.values()) this.#giveBack(branch);
  }

  clear(): void {
    this.#compiled.clear();
    this.#layouts.clear();
    this.#repeated.clear();
    this.#ofCalls = new WeakMap();
    this.#enqueued = [];
  }

  #find({ kernel, slots }: Call): Repeated {
    let branch = made(this.#repeated, kernel, newBranch);
    for (const { id } of slots) branch = made(branch.next, id, newBranch);
    branch.repeated ??= this.#repeat(kernel, slots);
    return branch.repeated;
  }

  #repeat(kernel: Kernel, buffers: readonly GpuMemory[]): Repeated {
    const sharedWith = buffers.map((memory) => buffers.indexOf(memory));
    return {
      compiled: this.#compile(kernel, sharedWith),
      unique: buffers.filter((_, i) => sharedWith[i] === i),
      dispatches: [],
      enqueued: 0,
    };
  }

  #create({ compiled, unique }: Repeated): Used {
    const parameters = this.#parameters.take();
    const bindGroup = this.#gpu.createBindGroup({
      layout: compiled.layout,
      entries: [
        { binding: 0, resource: this.#parameters.resource(parameters) },
        ...unique.map(({ buffer }, i) => ({ binding: i + 1, resource: { buffer } })),
      ],
    });
    return { pipeline: compiled.pipeline, bindGroup, parameters };
  }

  #compile(kernel: Kernel, sharedWith: readonly number[]): Compiled {
    const key = `${kernel.name}/${sharedWith.join("")}`;
    let compiled = this.#compiled.get(key);
    if (compiled === undefined) {
      const slots = Object.entries(kernel.buffers);
      const layout = this.#layout(
        slots.flatMap((_, i) => (sharedWith[i] === i ? [sharedAccess(slots, sharedWith, i)] : [])),
      );
      const module = this.#gpu.createShaderModule({ code: wgsl(kernel, sharedWith), label: key });
      const pipeline = this.#gpu.createComputePipeline({
        label: key,
        layout: this.#gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      compiled = { pipeline, layout };
      this.#compiled.set(key, compiled);
    }
    return compiled;
  }

  #layout(access: readonly BufferSlot["access"][]): GPUBindGroupLayout {
    const key = access.map((a) => (a === "read" ? "r" : "w")).join("");
    let layout = this.#layouts.get(key);
    if (layout === undefined) {
      layout = this.#gpu.createBindGroupLayout({
        entries: [
          { binding: 0, visibility: computeStage, buffer: { type: "uniform", minBindingSize: paramBytes } },
          ...access.map((a, i) => ({
            binding: i + 1,
            visibility: computeStage,
            buffer: { type: a === "read" ? ("read-only-storage" as const) : ("storage" as const) },
          })),
        ],
      });
      this.#layouts.set(key, layout);
    }
    return layout;
  }
}

/** GPUShaderStage.COMPUTE; the named constants are globals that Node does not have. */
const computeStage = 4;
