import { DeviceError } from "../../core/index.js";
import type { Backend } from "../backend.js";
import type { BackendOptions } from "../backendOptions.js";
import { chooseAttention } from "./attentionCheck.js";
import { WebGpuBackend } from "./backend.js";
import { Device } from "./device.js";
import { checkOperations } from "./operationCheck.js";

/** @throws DeviceError when there is no WebGPU, no GPU, (in Node) no package `webgpu`, or a GPU that computes wrongly. */
export async function createBackend({ hardwareGpu = false }: BackendOptions = {}): Promise<Backend> {
  const device = await Device.open();
  if (hardwareGpu && device.isSoftware) {
    device[Symbol.dispose]();
    throw new DeviceError("the only GPU that WebGPU found is one that the CPU plays");
  }
  const backend = new WebGpuBackend(device);
  try {
    await checkOperations(backend);
    await chooseAttention(backend, device);
  } catch (error) {
    device[Symbol.dispose]();
    throw error;
  }
  return backend;
}
