import { DeviceError } from "../../core/index.js";
import { dotByte, dotWide } from "../program/layout.js";
import { baseline, relaxed } from "./generated/kernels.js";
import type { NativeCall } from "./native.js";

/** Declarations that merge with the DOM's where an application has them, and stand for them where it has not. */
declare global {
  namespace WebAssembly {
    interface Module {}
    interface Memory {}
  }
}

/** What the AssemblyScript module exports. */
export interface KernelExports {
  /** @param native bits of the kernels that are called in place of its own */
  configure(threads: number, mayBlock: number, spins: number, native: number): void;
  /** Runs the program in this memory as thread `thread`. */
  run(thread: number): void;
  /** Looks `count` times at a flag. */
  spin(count: number): void;
  park(): number;
  wake(arena: number): void;
  /** Of the module for inference. */
  byteDotIsExact?(): number;
}

export type KernelBuild = "baseline" | "relaxed";
export type DotProduct = "wide" | "byte";

export interface Kernels {
  module: WebAssembly.Module;
  build: KernelBuild;
  dot: DotProduct;
  dotCode: number;
}

/** A module in two builds, base64. */
export type Builds = Readonly<Record<KernelBuild, string>>;

const inference: Builds = { relaxed, baseline };

/**
 * The fastest build that this engine takes, and the way of summing 8-bit products that is exact on this machine.
 * `build` and `dot` ask for one of them, for tests and comparisons.
 * @throws DeviceError when the engine lacks what the build needs
 */
export async function loadKernels(wanted: { build?: KernelBuild; dot?: DotProduct } = {}): Promise<Kernels> {
  const { module, build } = await compileKernels(inference, wanted.build);
  const exact = instantiate(module, newMemory(8, 8)).byteDotIsExact!() === 1;
  if (wanted.dot === "byte" && !exact) {
    throw new DeviceError(`the ${build} build has no exact dot product of bytes on this machine; leave "dot" out`);
  }
  const dot = exact && wanted.dot !== "wide" ? "byte" : "wide";
  return { module, build, dot, dotCode: dot === "byte" ? dotByte : dotWide };
}

/** The fastest build that this engine takes, or the one that is wanted. @throws DeviceError where it takes none */
export async function compileKernels(builds: Builds, wanted?: KernelBuild): Promise<Pick<Kernels, "module" | "build">> {
  const candidates: KernelBuild[] = wanted === undefined ? ["relaxed", "baseline"] : [wanted];
  for (const build of candidates) {
    const bytes = fromBase64(builds[build]);
    if (!WebAssembly.validate(bytes)) continue;
    const module = await WebAssembly.compile(bytes).catch((cause: unknown) => {
      throw new DeviceError(
        "the WebAssembly kernels could not be compiled: the engine has no memory left, or the page's Content-Security-Policy " +
          "lacks 'wasm-unsafe-eval' in script-src",
        { cause },
      );
    });
    return { module, build };
  }
  throw new DeviceError(
    wanted === undefined
      ? "this JavaScript engine lacks WebAssembly SIMD or threads; use Node 20 or a browser of 2023 or later, or the reference backend"
      : `this JavaScript engine does not take the ${wanted} build of the kernels`,
  );
}

const noNative: NativeCall = () => 0;

/** @throws DeviceError where the engine has no memory left for the code */
export function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  native: NativeCall = noNative,
): KernelExports {
  try {
    return new WebAssembly.Instance(module, { env: { memory, native } }).exports as unknown as KernelExports;
  } catch (cause) {
    throw new DeviceError("the WebAssembly kernels could not be instantiated: the engine has no memory left", {
      cause,
    });
  }
}

/**
 * Shared memories exist without cross-origin isolation too; they only cannot be sent to a worker then.
 * @throws DeviceError where the machine will not give the address space
 */
export function newMemory(pages: number, maximumPages: number): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: maximumPages, shared: true });
  } catch (cause) {
    throw new DeviceError(
      `no WebAssembly memory of up to ${maximumPages * 65536} bytes could be reserved: engines set some 10 GB of address space aside ` +
        "for each, whatever is used of it. Raise the limit on address space (ulimit -v), close other models, or take the reference backend",
      { cause },
    );
  }
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
