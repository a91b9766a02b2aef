import { type Device, type GpuMemory, usage } from "./device.js";
import type { Recorder } from "./recorder.js";

const copied = usage.storage | usage.copySrc | usage.copyDst;

/**
 * Memory of the cache that was disposed of last, for the next one: a driver may take a quarter of a millisecond to free a
 * buffer, and a cache has two for every layer.
 */
export class KeptKv {
  #kept: GpuMemory[] = [];

  constructor(
    readonly device: Device,
    readonly recorder: Recorder,
  ) {}

  /** Zeros, in memory of at least so many bytes and at most twice as many. */
  take(byteLength: number, label: string): GpuMemory {
    this.device.throwIfGone();
    const fitting = this.#kept.filter(
      (memory) => memory.byteLength >= byteLength && memory.byteLength <= 2 * byteLength,
    );
    if (fitting.length === 0) {
      // A cache of another shape: both need not be there at once.
      this.free();
      return this.device.allocate(byteLength, copied, label);
    }
    const least = fitting.reduce((a, b) => (b.byteLength < a.byteLength ? b : a));
    this.#kept.splice(this.#kept.indexOf(least), 1);
    this.recorder.clear(least);
    return least;
  }

  /** Keeps these in the place of what is kept. */
  keep(memories: readonly GpuMemory[]): void {
    this.#freeLater();
    this.#kept = [...memories];
  }

  /** Frees what is kept before anything else is allocated. */
  free(): void {
    if (this.#kept.length === 0) return;
    this.#freeLater();
    this.recorder.submit();
  }

  #freeLater(): void {
    for (const memory of this.#kept) this.recorder.freeLater(memory);
    this.#kept = [];
  }
}
