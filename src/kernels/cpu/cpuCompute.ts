import { UsageError } from "../../core/index.js";
import type { Compute, ComputeRecorder, CpuOptions, DeviceMemory, Kernel, ReadBack } from "../compute.js";
import { Arena } from "../program/arena.js";
import { dotWide, maxThreads } from "../program/layout.js";
import { findNative } from "../wasm/findNative.js";
import { baseline, relaxed } from "../wasm/generated/trainingKernels.js";
import { compileKernels, type KernelBuild } from "../wasm/kernels.js";
import { WasmMachine } from "../wasm/machine.js";
import type { NativeSet } from "../wasm/native.js";
import { freeThreads, ThreadsError } from "../wasm/pool.js";
import { stepProduct } from "./codes.js";
import { type Form, forms } from "./forms.js";
import { checkProduct } from "./productExtents.js";

/** Beside what a user may choose, what tests compare. */
export interface CpuSettings extends CpuOptions {
  build?: KernelBuild;
  native?: boolean | NativeSet;
}

/** As those of the WebAssembly backend. */
const memoryLimit = 0xffff0000;

/** @throws DeviceError when the engine lacks WebAssembly with SIMD and shared memory, or has none left */
export async function openCpu({ threads, build, native }: CpuSettings = {}): Promise<CpuCompute> {
  const shareable = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
  const wanted = threads ?? (shareable ? Math.min(await freeThreads(), maxThreads) : 1);
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > maxThreads)
    throw new UsageError(`${threads} threads; expected 1 to ${maxThreads}`);
  const kernels = { ...(await compileKernels({ baseline, relaxed }, build)), dot: "wide", dotCode: dotWide } as const;
  const settings = {
    memoryLimit,
    mayBlock: typeof window === "undefined",
    native: await findNative(native, kernels.build),
  };
  const open = async (threads: number) => {
    const machine = await WasmMachine.start(kernels, { ...settings, threads });
    return new CpuCompute(machine, await Arena.create(machine));
  };
  try {
    return await open(wanted);
  } catch (error) {
    // Without threads it works too, only slower.
    if (!(error instanceof ThreadsError) || threads !== undefined || wanted === 1) throw error;
    return open(1);
  }
}

/** Some of the WebAssembly memory. */
class CpuMemory implements DeviceMemory {
  constructor(
    readonly offset: number,
    readonly byteLength: number,
  ) {}
}

const at = (memory: DeviceMemory): number => (memory as CpuMemory).offset;

/** Words of a step before its parameters: see `Step` of wasm/assembly/training/step.ts. */
const headWords = 5;

/** Threads and their memory as a device: kernels are those of a GPU by name, done by steps of WebAssembly on the calling thread and others. */
export class CpuCompute implements Compute {
  readonly description: string;
  /** Parts of sums cost more here than they gain, but for very few rows and columns. */
  readonly enoughTiles = 16;
  readonly rowUnit = 1;
  readonly #words = new Int32Array(64);
  readonly #unsigned = new Uint32Array(this.#words.buffer);
  readonly #floats = new Float32Array(this.#words.buffer);
  #disposed = false;

  constructor(
    readonly machine: WasmMachine,
    readonly arena: Arena,
  ) {
    this.description = machine.info.description.replace(", wide dot product", "");
  }

  readonly device = {
    free: (memory: DeviceMemory): void => {
      if (this.#disposed) return;
      // What is recorded may use it.
      this.arena.settle();
      this.arena.release(at(memory));
    },
    throwIfGone: (): void => {
      if (this.#disposed) throw new UsageError("the device was disposed");
      this.machine.check();
    },
  };

  readonly recorder: ComputeRecorder = {
    run: (kernel, params, buffers, grid) => this.#record(kernel, params, buffers, grid),
    makeRoom() {},
    copy: (source, sourceOffset, target, targetOffset, byteLength) => {
      this.arena.run();
      const bytes = this.arena.bytes(at(source) + sourceOffset, byteLength);
      this.arena.bytes(at(target) + targetOffset, byteLength).set(bytes);
    },
    submit: () => this.arena.run(),
    settle: async () => this.arena.run(),
    read: async (memory, offset, byteLength) => {
      this.arena.run();
      return this.arena.bytes(at(memory) + offset, byteLength).slice().buffer as ArrayBuffer;
    },
  };

  allocate(words: number, _label: string): DeviceMemory {
    this.device.throwIfGone();
    const byteLength = Math.max(16, Math.ceil(words / 4) * 16);
    const offset = this.arena.allocate(byteLength);
    this.arena.bytes(offset, byteLength).fill(0);
    return new CpuMemory(offset, byteLength);
  }

  write(memory: DeviceMemory, values: Float32Array | Int32Array | Uint32Array, offset = 0): void {
    this.device.throwIfGone();
    if (4 * offset + values.byteLength > memory.byteLength) throw new RangeError("more than the memory holds");
    const target = values instanceof Float32Array ? "floats" : "words";
    this.arena[target](at(memory) + 4 * offset, values.length).set(values);
  }

  readBack(words: number, _label: string): ReadBack {
    const values = new Float32Array(words);
    return {
      copy: (source, offset, to, length) => {
        this.arena.run();
        values.set(this.arena.floats(at(source) + 4 * offset, length), to);
      },
      read: async (length) => {
        this.arena.run();
        return values.slice(0, length);
      },
    };
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.machine[Symbol.dispose]();
  }

  #record(
    kernel: Kernel,
    params: Readonly<Record<string, number>>,
    buffers: Readonly<Record<string, DeviceMemory>>,
    grid: readonly [number, number?, number?],
  ): void {
    const form = forms.get(kernel.name);
    if (form === undefined) throw new UsageError(`the kernel "${kernel.name}" has no form for a CPU`);
    const { code, variant = 0 } = form;
    if (code === stepProduct) checkProduct(variant, params, buffers, grid[2] ?? 1);
    this.#unsigned[0] = variant;
    this.#unsigned[1] = this.#scratch(form);
    for (let axis = 0; axis < 3; axis++) this.#unsigned[2 + axis] = grid[axis] ?? 1;
    let word = headWords;
    for (const name in kernel.params) {
      (kernel.params[name] === "f32" ? this.#floats : this.#unsigned)[word++] = params[name];
    }
    for (const name in kernel.buffers) this.#unsigned[word++] = at(buffers[name]);
    this.arena.append(code, this.#words.subarray(0, word));
  }

  #scratch({ scratchBytes = 0 }: Form): number {
    return scratchBytes === 0 ? 0 : this.arena.scratch(scratchBytes * this.machine.info.threads!);
  }
}
