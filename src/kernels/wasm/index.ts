import { DeviceError, UsageError } from "../../core/index.js";
import { maxThreads } from "../program/layout.js";
import { ProgramBackend } from "../program/programBackend.js";
import { findNative } from "./findNative.js";
import { type DotProduct, type KernelBuild, loadKernels } from "./kernels.js";
import { WasmMachine } from "./machine.js";
import type { NativeSet } from "./native.js";
import { hardwareThreads, ThreadsError } from "./pool.js";

export type { DotProduct, KernelBuild } from "./kernels.js";
export type { NativeSet } from "./native.js";

export interface WasmBackendOptions {
  /** Threads that work at the same time, the calling one included; default: the machine's, 1 where memory cannot be shared. */
  threads?: number;
  /** A build or a way of summing 8-bit products other than the fastest that works here. */
  build?: KernelBuild;
  dot?: DotProduct;
  /**
   * Whether kernels of the processor's own instructions take over what they can (Node.js only), or the name of a set of them that
   * must be there; default: the best that runs here, none where there is no file for this platform or RAREFY_NATIVE=0.
   */
  native?: boolean | NativeSet;
  /** Largest size of one WebAssembly memory in bytes; default 4 GiB less a page. */
  memoryLimit?: number;
}

/**
 * Where threads cannot be started and none were asked for, it works in one and says why in `info.description`.
 * @throws DeviceError when the engine lacks SIMD or threads, or `threads` > 1 and memory cannot be shared with workers or those cannot be started
 */
export async function createBackend(options: WasmBackendOptions = {}): Promise<ProgramBackend> {
  const shareable = canShareMemory();
  const threads = options.threads ?? (shareable ? Math.min(await hardwareThreads(), maxThreads) : 1);
  if (!Number.isInteger(threads) || threads < 1 || threads > maxThreads) {
    throw new UsageError(`${threads} threads; expected 1 to ${maxThreads}`);
  }
  if (threads > 1 && !shareable) {
    throw new DeviceError(
      "threads need shared memory, and this page may not share any: serve it with the headers Cross-Origin-Opener-Policy: " +
        "same-origin and Cross-Origin-Embedder-Policy: require-corp, or use one thread",
    );
  }
  const kernels = await loadKernels(options);
  const settings = {
    memoryLimit: options.memoryLimit ?? 0xffff0000,
    mayBlock: typeof window === "undefined",
    native: await findNative(options.native, kernels.build),
  };
  const open = async (more: { threads: number; oneThreadBecause?: string }) =>
    ProgramBackend.on(await WasmMachine.start(kernels, { ...settings, ...more }));
  try {
    return await open({ threads });
  } catch (error) {
    // Nobody asked for threads: without them it works too, only slower.
    if (!(error instanceof ThreadsError) || options.threads !== undefined) throw error;
    return open({ threads: 1, oneThreadBecause: `more could not be started: ${error.reason}` });
  }
}

/** Node and isolated pages may send shared memory to workers. */
const canShareMemory = () => (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
