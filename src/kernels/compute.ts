import type { Kernel } from "./webgpu/kernel.js";

export { type Kernel, kernel, read, readWrite } from "./webgpu/kernel.js";

/** Some f32 or u32 on a device. */
export interface DeviceMemory {
  readonly byteLength: number;
}

/** What is recorded runs in that order, at the latest when it is submitted. */
export interface ComputeRecorder {
  /** Enqueues a kernel over `grid` workgroups. */
  run<P extends string, B extends string>(
    kernel: Kernel<P, B>,
    params: Readonly<Record<NoInfer<P>, number>>,
    buffers: Readonly<Record<NoInfer<B>, DeviceMemory>>,
    grid: readonly [number, number?, number?],
  ): void;
  /** Between operations: what was recorded may be handed over. */
  makeRoom(dispatches: number, counterPairs: number): void;
  copy(
    source: DeviceMemory,
    sourceOffset: number,
    target: DeviceMemory,
    targetOffset: number,
    byteLength: number,
  ): void;
  submit(): void;
  /** Submits, and waits until all of it has run. @throws DeviceError */
  settle(): Promise<void>;
  /** Bytes [offset, offset + byteLength), after everything enqueued before. @throws DeviceError */
  read(memory: DeviceMemory, offset: number, byteLength: number): Promise<ArrayBuffer>;
}

/** What is read after every step, into a buffer that is kept: making one anew takes milliseconds on a GPU. */
export interface ReadBack {
  /** Enqueues a copy of f32 to place `at` of what is read next; all in words. */
  copy(source: DeviceMemory, offset: number, at: number, length: number): void;
  /** Submits, and reads the first `length` words. @throws DeviceError */
  read(length: number): Promise<Float32Array>;
}

/** A device for kernels of one's own. */
export interface Compute extends Disposable {
  /** In words, for people. */
  readonly description: string;
  readonly device: {
    free(memory: DeviceMemory): void;
    /** @throws DeviceError, UsageError */
    throwIfGone(): void;
  };
  readonly recorder: ComputeRecorder;
  /** Tiles of a product that keep it busy: long sums of fewer are cut into parts. */
  readonly enoughTiles: number;
  /** Sums over rows in a product are of a multiple of so many; what lies behind the last row is multiplied by 0. */
  readonly rowUnit: number;
  /** So many f32 or u32, 0 at first. @throws DeviceError */
  allocate(words: number, label: string): DeviceMemory;
  /** Writes values from word `offset` on, before what is submitted from now on. */
  write(memory: DeviceMemory, values: Float32Array | Int32Array | Uint32Array, offset?: number): void;
  readBack(words: number, label: string): ReadBack;
}

/** How a CPU computes. */
export interface CpuOptions {
  /** Threads, the calling one included; default: the machine's, or one in a thread beside the main one. */
  threads?: number;
}
