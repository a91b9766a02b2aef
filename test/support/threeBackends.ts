import { type Backend, openBackend } from "../../src/kernels/index.js";
import { WebGpuBackend } from "../../src/kernels/webgpu/backend.js";
import { Device } from "../../src/kernels/webgpu/device.js";
import { useSoftwareGpu } from "./softwareGpu.js";

await useSoftwareGpu();
/** Why there is no WebGPU here. */
export const noGpu = await Device.open().then(
  (device) => void device[Symbol.dispose](),
  (error: Error) => error.message,
);

/** Ways to open each kind of backend that is here, by its name. */
export const threeBackends: Record<string, () => Promise<Backend>> = {
  reference: () => openBackend("reference"),
  wasm: () => openBackend("wasm", { threads: 2 }),
  ...(noGpu === undefined && { webgpu: async () => new WebGpuBackend(await Device.open()) }),
};
