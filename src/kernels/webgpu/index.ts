import type { Backend } from "../backend.js";
import { WebGpuBackend } from "./backend.js";
import { Device } from "./device.js";

/** @throws DeviceError when there is no WebGPU, no GPU, or (in Node) no package `webgpu`. */
export async function createBackend(): Promise<Backend> {
  return new WebGpuBackend(await Device.open());
}
