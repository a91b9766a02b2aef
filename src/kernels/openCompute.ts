import type { Compute, CpuOptions } from "./compute.js";

/**
 * A GPU, or the processor's threads.
 * @throws DeviceError when there is no WebGPU or no GPU, or no WebAssembly with SIMD and shared memory
 */
export async function openCompute(device: "webgpu" | "wasm" = "webgpu", options: CpuOptions = {}): Promise<Compute> {
  if (device === "wasm") return (await import("./cpu/cpuCompute.js")).openCpu(options);
  return (await import("./webgpu/gpuCompute.js")).openGpuCompute();
}
