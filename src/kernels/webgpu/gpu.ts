import { DeviceError } from "../../core/index.js";
import type { GpuEntry } from "./gpuEntry.js";

/** `navigator.gpu` where there is one (browsers, Deno), else the optional package `webgpu` (Dawn) in Node. */
export async function openGpu(): Promise<GpuEntry> {
  const gpu = globalThis.navigator?.gpu;
  if (gpu !== undefined) return { gpu, turns: undefined, release() {} };
  if (globalThis.process?.versions?.node !== undefined) return (await import("./dawn.node.js")).openDawn();
  throw new DeviceError(
    "this browser has no WebGPU (navigator.gpu is undefined); use a current browser and a secure (https) page",
  );
}
