import type { Backend } from "../backend.js";
import { WebGpuBackend } from "./backend.js";
import { Device } from "./device.js";
import { checkOperations } from "./selfCheck.js";

/** @throws DeviceError when there is no WebGPU, no GPU, (in Node) no package `webgpu`, or a GPU that computes wrongly. */
export async function createBackend(): Promise<Backend> {
  const device = await Device.open();
  const backend = new WebGpuBackend(device);
  try {
    await checkOperations(backend);
  } catch (error) {
    device[Symbol.dispose]();
    throw error;
  }
  return backend;
}
