import type { Device } from "./webgpu/device.js";
import type { Recorder } from "./webgpu/recorder.js";

export type { GpuMemory } from "./webgpu/device.js";
export { type Kernel, kernel, read, readWrite } from "./webgpu/kernel.js";
export type { Recorder } from "./webgpu/recorder.js";

/** A GPU for kernels of one's own: what the WebGPU backend records its dispatches with. */
export interface Compute extends Disposable {
  readonly device: Device;
  readonly recorder: Recorder;
  /** A zero-filled storage buffer for so many f32 or u32. */
  allocate(words: number, label: string): ReturnType<Device["allocate"]>;
  /** A buffer that `recorder.copy` fills and the host maps. */
  allocateReadBack(words: number, label: string): ReturnType<Device["allocate"]>;
}

/** @throws DeviceError when there is no WebGPU or no GPU */
export async function openCompute(): Promise<Compute> {
  const [{ Device, usage }, { Recorder }] = await Promise.all([
    import("./webgpu/device.js"),
    import("./webgpu/recorder.js"),
  ]);
  const device = await Device.open();
  return {
    device,
    recorder: new Recorder(device),
    allocate: (words, label) => device.allocate(4 * words, usage.storage | usage.copySrc | usage.copyDst, label),
    allocateReadBack: (words, label) => device.allocate(4 * words, usage.mapRead | usage.copyDst, label),
    [Symbol.dispose]: () => device[Symbol.dispose](),
  };
}
