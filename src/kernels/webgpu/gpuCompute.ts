import type { Compute } from "../compute.js";
import { Device, describeDevice, type GpuMemory, usage } from "./device.js";
import { Recorder } from "./recorder.js";

/** GPUMapMode.READ */
const mapRead = 1;

/** What the WebGPU backend records its dispatches with. @throws DeviceError when there is no WebGPU or no GPU */
export async function openGpuCompute(): Promise<Compute & { device: Device; recorder: Recorder }> {
  const device = await Device.open();
  const recorder = new Recorder(device);
  return {
    description: describeDevice(device),
    device,
    recorder,
    enoughTiles: 512,
    rowUnit: 4,
    allocate: (words, label) => device.allocate(4 * words, usage.storage | usage.copySrc | usage.copyDst, label),
    write(memory, values, offset = 0) {
      device.throwIfGone();
      const { buffer } = memory as GpuMemory;
      device.gpu.queue.writeBuffer(buffer, 4 * offset, values as Float32Array<ArrayBuffer>);
    },
    readBack(words, label) {
      const staging = device.allocate(4 * words, usage.mapRead | usage.copyDst, label);
      return {
        copy: (source, offset, at, length) =>
          recorder.copy(source as GpuMemory, 4 * offset, staging, 4 * at, 4 * length),
        async read(length) {
          recorder.submit();
          await staging.buffer.mapAsync(mapRead, 0, 4 * length);
          const copy = new Float32Array(staging.buffer.getMappedRange(0, 4 * length).slice(0));
          staging.buffer.unmap();
          device.throwIfFailed();
          return copy;
        },
      };
    },
    [Symbol.dispose]: () => device[Symbol.dispose](),
  };
}
