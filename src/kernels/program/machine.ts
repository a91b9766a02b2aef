import type { BackendInfo } from "../backend.js";

/** What runs programs: WebAssembly with its threads. All else of a backend is the same for any of them. */
export interface Machine extends Disposable {
  readonly info: BackendInfo;
  /** How its kernels sum 8-bit products, as the products' records say it: `dotWide` or `dotByte` of layout.ts. */
  readonly dot: number;
  /** Largest size of one memory in bytes; weights beyond it go into further memories. */
  readonly memoryLimit: number;
  /** Whether its threads have failed: nothing runs any more. */
  readonly failed: boolean;
  /** @throws DeviceError once its threads have failed */
  check(): void;
  /** @throws DeviceError when the machine will not give the address space */
  openMemory(): Promise<MachineMemory>;
  /** Another machine like this one, with threads and memories of its own. */
  another(): Promise<Machine>;
}

/** Bytes that the host and the kernels share, laid out as layout.ts says. */
export interface MachineMemory {
  /** The bytes; what it gives changes with `grow`. */
  readonly buffer: ArrayBufferLike;
  /** Adds at least so many bytes of zeros. @throws what the engine throws when there are none */
  grow(byteLength: number): void;
  /** Says that so many bytes will be written whole, and read often, as weights are: a machine may hold them in large pages. */
  fills?(offset: number, byteLength: number): void;
  /** Runs the program in it on all threads, the calling one included, and returns when it is done. @throws DeviceError when one fails */
  run(): void;
}
