import { UsageError } from "../../core/index.js";
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
  /** One thread where `threads` cannot be had, with the reason in `info.description`; default: only where none are given. */
  fewerThreads?: boolean;
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
 * @throws DeviceError when the engine lacks SIMD or threads, or, without `fewerThreads`, memory cannot be shared with workers or
 * those cannot be started
 */
export async function createBackend(options: WasmBackendOptions = {}): Promise<ProgramBackend> {
  const shareable = canShareMemory();
  const threads = options.threads ?? (shareable ? Math.min(await hardwareThreads(), maxThreads) : 1);
  if (!Number.isInteger(threads) || threads < 1 || threads > maxThreads) {
    throw new UsageError(`${threads} threads; expected 1 to ${maxThreads}`);
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
    if (threads > 1 && !shareable) throw new ThreadsError(notShareable);
    return await open({ threads });
  } catch (error) {
    // Without threads it works too, only slower.
    const { fewerThreads = options.threads === undefined } = options;
    if (!(error instanceof ThreadsError) || !fewerThreads) throw error;
    return open({ threads: 1, oneThreadBecause: `more could not be started: ${error.reason}` });
  }
}

const notShareable =
  "threads need shared memory, and this page may not share any: serve it with the headers Cross-Origin-Opener-Policy: " +
  "same-origin and Cross-Origin-Embedder-Policy: require-corp";

/** Node and isolated pages may send shared memory to workers. */
const canShareMemory = () => (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
