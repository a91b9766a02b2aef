import { DeviceError } from "../../core/index.js";
import type { GpuWork } from "../backend.js";
import { type Device, type GpuMemory, usage } from "./device.js";
import { type Call, slotsOf } from "./dispatches.js";
import type { Kernel } from "./kernel.js";
import { withNaps } from "./naps.js";
import { type KernelTime, PassTimer } from "./passTimer.js";

const maxDispatches = 1024;

/**
 * So many dispatches are handed over at once: the GPU works on them while the next ones are recorded. Few at first, when it
 * has nothing to do; then twice as many each time, since handing over has its price: a token of a running generation is
 * handed over whole.
 */
const handOver = { first: 8, most: 256 };

/** Bytes on their way to the host. */
export interface PendingRead {
  /** Waits for them, and delivers the counts of what ran before. @throws DeviceError */
  bytes(): Promise<ArrayBuffer>;
  /** Nobody wants them. */
  cancel(): void;
}

/** What a kernel counts into two consecutive words of the counter buffer, and who wants to know. */
export type OnCounted = (first: number, second: number) => void;

const counterWords = 4096;

/** Counts on their way to the host. */
interface Unread {
  readonly staging: GpuMemory;
  readonly counted: readonly OnCounted[];
}

const noWork = (): GpuWork => ({ dispatches: 0, passes: 0, submits: 0 });

/**
 * Collects dispatches in one command encoder; their parameters travel just before the submit. Nothing is created for a
 * dispatch that was there before but what the WebGPU calls themselves create.
 */
export class Recorder {
  readonly #device: Device;
  /** u32 words that kernels add to; cleared when they are read. */
  readonly counters: GpuMemory;
  #counted: OnCounted[] = [];
  readonly #unread: Unread[] = [];
  readonly #freeStaging: GpuMemory[] = [];
  /** Told of the buffers that are about to be used, by an operation or a copy; of none before a wait. It may enqueue. */
  beforeUse: (memories: readonly GpuMemory[]) => void = () => {};
  #dispatches = 0;
  #work = noWork();
  /** While passes are timed. */
  #timer: PassTimer | undefined;
  #dispatchesApart = false;
  #handOverAt = handOver.first;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  /** That the pass has been set to. */
  #pipeline: GPUComputePipeline | undefined;
  #afterSubmit: GpuMemory[] = [];
  #submits = 0;

  constructor(device: Device) {
    this.#device = device;
    this.counters = device.allocate(counterWords * 4, usage.storage | usage.copySrc | usage.copyDst, "counters");
  }

  /** Enqueues one dispatch of `grid` workgroups. */
  run<P extends string, B extends string>(
    kernel: Kernel<P, B>,
    params: Readonly<Record<NoInfer<P>, number>>,
    buffers: Readonly<Record<NoInfer<B>, GpuMemory>>,
    grid: readonly [number, number?, number?],
    table: ArrayLike<number> = [],
  ): void {
    this.record({ kernel, params, slots: slotsOf(kernel, buffers), grid, table });
  }

  /** Enqueues a dispatch; a call that was made before, with less work. */
  record(call: Call): void {
    const { kernel, grid } = call;
    this.beforeUse(call.slots);
    for (const size of grid) {
      if (size !== undefined && size > this.#device.limits.maxComputeWorkgroupsPerDimension) {
        throw new DeviceError(`${kernel.name}: ${size} workgroups in one dimension are more than this GPU takes`);
      }
    }
    if (this.#dispatches === maxDispatches) this.submit();
    this.#dispatches++;
    this.#work.dispatches++;
    const { pipeline, bindGroup } = this.#device.dispatches.next(call);
    const pass = this.#openPass();
    if (pipeline !== this.#pipeline) pass.setPipeline(pipeline);
    this.#pipeline = pipeline;
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    if (!this.#dispatchesApart) return;
    this.#timer?.kernels.push(kernel.name);
    this.#closePass();
  }

  /**
   * Makes sure that so many dispatches fit before the next submit and so many counter pairs before the next wait: counters
   * are read between operations, so that none is split. Between operations is also where work is handed over early.
   */
  makeRoom(dispatches: number, counterPairs: number): void {
    this.beforeUse([]);
    const pairs = this.#counted.length + counterPairs;
    if (pairs * 2 > counterWords) this.#drainCounters();
    if (this.#dispatches >= this.#handOverAt || this.#dispatches + dispatches > maxDispatches) {
      this.submit();
      this.#handOverAt = Math.min(2 * this.#handOverAt, handOver.most);
    }
  }

  /**
   * Two words of `counters` for dispatches enqueued from now on; `onCounted` learns their values at a later wait.
   * @returns index of the first word
   */
  countPair(onCounted: OnCounted): number {
    this.#counted.push(onCounted);
    return (this.#counted.length - 1) * 2;
  }

  copy(source: GpuMemory, sourceOffset: number, target: GpuMemory, targetOffset: number, byteLength: number): void {
    this.beforeUse([source, target]);
    this.#closePass().copyBufferToBuffer(source.buffer, sourceOffset, target.buffer, targetOffset, byteLength);
  }

  /** Fills a buffer with zeros. */
  clear(memory: GpuMemory): void {
    this.beforeUse([memory]);
    this.#closePass().clearBuffer(memory.buffer);
  }

  /** Frees a buffer once everything enqueued so far is submitted. */
  freeLater(memory: GpuMemory): void {
    this.#afterSubmit.push(memory);
  }

  /** Hands everything enqueued to the GPU. */
  submit(): void {
    this.beforeUse([]);
    if (this.#encoder !== undefined) {
      const encoder = this.#closePass();
      this.#device.dispatches.submitting();
      this.#device.gpu.queue.submit([encoder.finish()]);
      this.#work.submits++;
      this.#submits++;
      this.#encoder = undefined;
      this.#dispatches = 0;
    }
    for (const memory of this.#afterSubmit) this.#device.free(memory);
    this.#afterSubmit = [];
  }

  /** Submits, and waits until all of it has run and its counts are delivered. @throws DeviceError */
  async settle(): Promise<void> {
    this.#device.throwIfGone();
    this.beforeUse([]);
    this.#drainCounters();
    this.submit();
    await this.#device.gpu.queue.onSubmittedWorkDone();
    await this.#deliver(this.#unread.splice(0));
    this.#handOverAt = handOver.first;
    this.#device.throwIfFailed();
  }

  /** Bytes [offset, offset + byteLength) of a buffer, after everything enqueued before. @throws DeviceError */
  async read(memory: GpuMemory, offset: number, byteLength: number): Promise<ArrayBuffer> {
    const bytes = await this.readBack(memory, offset, byteLength).bytes();
    this.#handOverAt = handOver.first;
    return bytes;
  }

  /** As `read`, but begins at once and is waited for later, while more is enqueued. */
  readBack(memory: GpuMemory, offset: number, byteLength: number): PendingRead {
    this.#device.throwIfGone();
    const staging = this.#staging(byteLength);
    this.copy(memory, offset, staging, 0, byteLength);
    this.#drainCounters();
    this.submit();
    const unread = this.#unread.splice(0);
    const submits = this.#submits;
    return {
      bytes: async () => {
        const arrives = Promise.all([this.#take(staging, byteLength), this.#deliver(unread)]);
        const { turns } = this.#device;
        const hasMoreToDo = this.#submits > submits;
        const [bytes] = await (hasMoreToDo && turns !== undefined ? withNaps(arrives, turns) : arrives);
        this.#device.throwIfFailed();
        return bytes;
      },
      cancel: () => {
        this.#unread.unshift(...unread);
        this.#keepStaging(staging);
      },
    };
  }

  /** Calls since the last taking. */
  takeWork(): GpuWork {
    const work = this.#work;
    this.#work = noWork();
    return work;
  }

  /** See `Backend.timeGpu`. @throws DeviceError */
  time(work: () => Promise<void>): Promise<number | undefined> {
    return this.#timed(work, (timer) => timer.busyMs());
  }

  /**
   * What each kernel takes of `work`, every dispatch in a pass of its own, which adds some microseconds to each; undefined
   * where the GPU keeps no timestamps. @throws DeviceError
   */
  async timeKernels(work: () => Promise<void>): Promise<KernelTime[] | undefined> {
    this.#dispatchesApart = true;
    try {
      return await this.#timed(work, (timer) => timer.kernelTimes());
    } finally {
      this.#dispatchesApart = false;
    }
  }

  async #timed<T>(work: () => Promise<void>, result: (timer: PassTimer) => Promise<T>): Promise<T | undefined> {
    if (!this.#device.features.has("timestamp-query")) {
      await work();
      return undefined;
    }
    this.submit();
    const timer = new PassTimer(this.#device.gpu);
    this.#timer = timer;
    try {
      await work();
      this.submit();
    } finally {
      this.#timer = undefined;
    }
    const times = await result(timer);
    this.#device.throwIfFailed();
    return times;
  }

  #openPass(): GPUComputePassEncoder {
    this.#device.throwIfGone();
    this.#encoder ??= this.#device.gpu.createCommandEncoder();
    if (this.#pass === undefined) {
      this.#pass = this.#encoder.beginComputePass({ timestampWrites: this.#timer?.next() });
      this.#work.passes++;
    }
    return this.#pass;
  }

  #closePass(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = undefined;
    this.#pipeline = undefined;
    this.#encoder ??= this.#device.gpu.createCommandEncoder();
    return this.#encoder;
  }

  #drainCounters(): void {
    if (this.#counted.length === 0) return;
    const encoder = this.#closePass();
    const byteLength = this.#counted.length * 8;
    const staging = this.#staging(byteLength);
    encoder.copyBufferToBuffer(this.counters.buffer, 0, staging.buffer, 0, byteLength);
    encoder.clearBuffer(this.counters.buffer, 0, byteLength);
    this.#unread.push({ staging, counted: this.#counted });
    this.#counted = [];
  }

  /** A mappable buffer of at least this size: a free one that is not much larger, or a new one. */
  #staging(byteLength: number): GpuMemory {
    const size = Math.max(256, 2 ** Math.ceil(Math.log2(byteLength)));
    const found = this.#freeStaging.findIndex((memory) => memory.byteLength === size);
    if (found >= 0) return this.#freeStaging.splice(found, 1)[0];
    return this.#device.allocate(size, usage.mapRead | usage.copyDst, "read-back");
  }

  async #deliver(unread: readonly Unread[]): Promise<void> {
    await Promise.all(
      unread.map(async ({ staging, counted }) => {
        const words = new Uint32Array(await this.#take(staging, counted.length * 8));
        for (const [i, onCounted] of counted.entries()) onCounted(words[2 * i], words[2 * i + 1]);
      }),
    );
  }

  /** Waits for a read-back, copies it and gives its buffer back. */
  async #take(staging: GpuMemory, byteLength: number): Promise<ArrayBuffer> {
    try {
      await staging.buffer.mapAsync(mapRead, 0, byteLength);
    } catch (cause) {
      this.#device.throwIfFailed();
      throw new DeviceError(`the GPU did not finish: ${(cause as Error).message}`, { cause });
    }
    const copy = staging.buffer.getMappedRange(0, byteLength).slice(0);
    staging.buffer.unmap();
    this.#keepStaging(staging);
    return copy;
  }

  #keepStaging(staging: GpuMemory): void {
    if (staging.byteLength <= keptStagingBytes) this.#freeStaging.push(staging);
    else this.#device.free(staging);
  }
}

/** Larger read-back buffers are not kept for the next one. */
const keptStagingBytes = 2 ** 20;

/** GPUMapMode.READ */
const mapRead = 1;
