import type { BackendInfo } from "../backend.js";
import { heapStart } from "../program/layout.js";
import type { Machine, MachineMemory } from "../program/machine.js";
import { instantiate, type KernelExports, type Kernels, newMemory } from "./kernels.js";
import type { NativeKernels } from "./native.js";
import { Pool } from "./pool.js";

const pageBytes = 65536;
/** At most so much lies between two matrices that were allocated one after the other. */
const marginBytes = 256;

/**
 * How long a thread looks at a flag before it goes to sleep. Waking a sleeper takes 50 µs and more, which is the time of
 * whole operations; longer gaps mean that a thread was not scheduled, and then looking only takes its processor away.
 */
const spinMs = 0.3;

/** Milliseconds of one look, which depends on engine and machine. */
function lookMs(kernels: KernelExports): number {
  const looks = 200_000;
  kernels.spin(looks);
  const start = performance.now();
  kernels.spin(looks);
  return Math.max(performance.now() - start, 0.01) / looks;
}

export interface WasmMachineSettings {
  threads: number;
  /** Largest size of one WebAssembly memory in bytes. */
  memoryLimit: number;
  /** Whether the calling thread may wait on memory: not on a page's main thread. */
  mayBlock: boolean;
  /** Why there is but one thread, for the description. */
  oneThreadBecause?: string;
  /** Kernels that run in place of those of WebAssembly, or why there are none, for the description. */
  native?: NativeKernels | { none: string };
}

/**
 * WebAssembly SIMD on threads: a program runs on all of them inside WebAssembly, where they meet after each operation
 * without coming back to JavaScript. The calling thread works too, so running a program blocks it.
 */
export class WasmMachine implements Machine {
  readonly info: BackendInfo;
  readonly dot: number;
  readonly memoryLimit: number;
  readonly #kernels: Kernels;
  readonly #pool: Pool;
  readonly #settings: WasmMachineSettings;
  readonly #native: NativeKernels | undefined;
  #memories = 0;

  private constructor(kernels: Kernels, pool: Pool, settings: WasmMachineSettings) {
    this.#kernels = kernels;
    this.#pool = pool;
    this.#settings = settings;
    this.dot = kernels.dotCode;
    this.memoryLimit = settings.memoryLimit;
    const { oneThreadBecause, native } = settings;
    const why = oneThreadBecause === undefined ? "" : ` (${oneThreadBecause})`;
    const threads = pool.threads === 1 ? `1 thread${why}` : `${pool.threads} threads`;
    const simd = `WebAssembly SIMD, ${kernels.build}`;
    this.#native = native !== undefined && "attach" in native ? native : undefined;
    const words =
      native === undefined
        ? ""
        : "attach" in native
          ? `, native ${native.name} kernels`
          : `, no native kernels (${native.none})`;
    this.info = {
      id: "wasm",
      description: `${simd}, ${kernels.dot} dot product, ${threads}${words}`,
      // Native kernels give the bits of those of WebAssembly.
      arithmetic: simd,
      threads: pool.threads,
    };
  }

  /** @throws ThreadsError when the threads cannot be had */
  static async start(kernels: Kernels, settings: WasmMachineSettings): Promise<WasmMachine> {
    return new WasmMachine(kernels, await Pool.start(settings.threads), settings);
  }

  async openMemory(): Promise<MachineMemory> {
    const pages = Math.ceil((heapStart + pageBytes) / pageBytes);
    const memory = newMemory(pages, Math.max(pages, Math.floor(this.memoryLimit / pageBytes)));
    const pool = this.#pool;
    const index = this.#memories++;
    const native = this.#native;
    const call = native?.attach(new Uint8Array(memory.buffer), 0, pool.threads);
    const instance = instantiate(this.#kernels.module, memory, call);
    const spins = pool.threads === 1 ? 0 : Math.ceil(spinMs / lookMs(instance));
    instance.configure(pool.threads, this.#settings.mayBlock ? 1 : 0, spins, native?.mask ?? 0);
    let filled = { from: 0, to: 0 };
    await pool.addMemory(this.#kernels.module, memory, instance, spins, native);
    return {
      get buffer() {
        return memory.buffer;
      },
      grow: (byteLength) => void memory.grow(Math.ceil(byteLength / pageBytes)),
      fills(offset, byteLength) {
        if (native === undefined) return;
        // Matrices beside each other share the large pages between them.
        const continues = offset >= filled.to && offset - filled.to <= marginBytes;
        filled = { from: continues ? filled.from : offset, to: offset + byteLength };
        native.useLargePages(new Uint8Array(memory.buffer, filled.from, filled.to - filled.from));
      },
      run() {
        pool.wake(index);
        try {
          instance.run(0);
        } catch (cause) {
          throw pool.fail(cause);
        }
      },
    };
  }

  get failed(): boolean {
    return this.#pool.failed;
  }

  check(): void {
    this.#pool.check();
  }

  another(): Promise<Machine> {
    return WasmMachine.start(this.#kernels, this.#settings);
  }

  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
  }
}
