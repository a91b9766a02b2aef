/// <reference types="@webgpu/types" />
import { usage } from "./device.js";

/** Two timestamps a pass; WebGPU allows 4096 in one set. */
const passesOfSet = 2048;

/** GPUMapMode.READ */
const mapRead = 1;

/** Timestamps at the beginning and the end of compute passes. */
export class PassTimer {
  readonly #sets: GPUQuerySet[] = [];
  #passes = 0;

  constructor(readonly gpu: GPUDevice) {}

  /** Where the next pass writes its own. */
  next(): GPUComputePassTimestampWrites {
    const place = this.#passes++ % passesOfSet;
    if (place === 0) this.#sets.push(this.gpu.createQuerySet({ type: "timestamp", count: 2 * passesOfSet }));
    const querySet = this.#sets.at(-1)!;
    return { querySet, beginningOfPassWriteIndex: 2 * place, endOfPassWriteIndex: 2 * place + 1 };
  }

  /** Milliseconds in which passes ran, those that overlap counted once. All of them were submitted. Use once. */
  async busyMs(): Promise<number> {
    const passes: [bigint, bigint][] = [];
    for (const [i, set] of this.#sets.entries()) {
      const count = Math.min(passesOfSet, this.#passes - i * passesOfSet);
      const times = await this.#times(set, 2 * count);
      for (let p = 0; p < count; p++) passes.push([times[2 * p], times[2 * p + 1]]);
      set.destroy();
    }
    return busyNanoseconds(passes) / 1e6;
  }

  async #times(set: GPUQuerySet, count: number): Promise<BigUint64Array> {
    const size = 8 * count;
    const onDevice = this.gpu.createBuffer({ size, usage: usage.queryResolve | usage.copySrc });
    const onHost = this.gpu.createBuffer({ size, usage: usage.mapRead | usage.copyDst });
    const encoder = this.gpu.createCommandEncoder();
    encoder.resolveQuerySet(set, 0, count, onDevice, 0);
    encoder.copyBufferToBuffer(onDevice, 0, onHost, 0, size);
    this.gpu.queue.submit([encoder.finish()]);
    await onHost.mapAsync(mapRead);
    const times = new BigUint64Array(onHost.getMappedRange().slice(0));
    onDevice.destroy();
    onHost.destroy();
    return times;
  }
}

/** Length of the union of spans of time. */
export function busyNanoseconds(spans: readonly (readonly [begin: bigint, end: bigint])[]): number {
  let [busy, until] = [0n, 0n];
  for (const [begin, end] of spans.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))) {
    const from = begin > until ? begin : until;
    if (end > from) busy += end - from;
    if (end > until) until = end;
  }
  return Number(busy);
}
