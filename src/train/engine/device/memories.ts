import type { Compute, DeviceMemory } from "../../../kernels/internal.js";

/** Memory of a device that goes together: where some of it cannot be had, what was taken before goes too. */
export class Memories implements Disposable {
  readonly #all: DeviceMemory[] = [];

  constructor(readonly compute: Compute) {}

  /** See `Compute.allocate`. @throws DeviceError, once all others have been given back */
  allocate(words: number, label: string): DeviceMemory {
    try {
      const memory = this.compute.allocate(words, label);
      this.#all.push(memory);
      return memory;
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** A buffer that holds these values. */
  filled(values: Float32Array | Uint32Array, label: string): DeviceMemory {
    const memory = this.allocate(values.length, label);
    this.compute.write(memory, values);
    return memory;
  }

  [Symbol.dispose](): void {
    for (const memory of this.#all.splice(0)) this.compute.device.free(memory);
  }
}
