import { type Device, type GpuMemory, usage } from "./device.js";
import { Recorder } from "./recorder.js";

/** What every operation needs: where to enqueue, and memory that lives no longer than the operation. */
export class Context {
  readonly recorder: Recorder;
  /** Stands in for an operand that is left out. */
  readonly nothing: GpuMemory;
  readonly #scratch = new Map<string, GpuMemory>();

  constructor(readonly device: Device) {
    this.recorder = new Recorder(device);
    this.nothing = device.allocate(16, usage.storage, "nothing");
  }

  /**
   * Memory of at least this size: 0 at first, then as the last operation left it. The same name gets the same memory, in
   * the order of the queue, until it is too small.
   */
  scratch(name: string, byteLength: number): GpuMemory {
    this.recorder.beforeUse([]);
    const current = this.#scratch.get(name);
    if (current !== undefined && current.byteLength >= byteLength) return current;
    if (current !== undefined) this.recorder.freeLater(current);
    const size = 2 ** Math.ceil(Math.log2(byteLength));
    const memory = this.device.allocate(size, usage.storage | usage.copySrc | usage.copyDst, name);
    this.#scratch.set(name, memory);
    return memory;
  }
}
