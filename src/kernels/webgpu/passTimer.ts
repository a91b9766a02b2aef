/// <reference types="@webgpu/types" />
import { usage } from "./device.js";

/** Two timestamps a pass; WebGPU allows 4096 in one set. */
const passesOfSet = 2048;

/** GPUMapMode.READ */
const mapRead = 1;

/** What one kernel took. */
export interface KernelTime {
  readonly kernel: string;
  dispatches: number;
  ms: number;
}

type Span = readonly [begin: bigint, end: bigint];

/** Timestamps at the beginning and the end of compute passes. */
export class PassTimer {
  readonly #sets: GPUQuerySet[] = [];
  #passes = 0;
  /** Of each pass the one kernel that it runs, where passes are so short. */
  readonly kernels: string[] = [];

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
    return busyNanoseconds(await this.#spans()) / 1e6;
  }

  /** What each kernel took, the dearest first. Use once. */
  async kernelTimes(): Promise<KernelTime[]> {
    const times = new Map<string, KernelTime>();
    for (const [i, span] of (await this.#spans()).entries()) {
      const kernel = this.kernels[i];
      const time = times.get(kernel) ?? { kernel, dispatches: 0, ms: 0 };
      times.set(kernel, time);
      time.dispatches++;
      time.ms += busyNanoseconds([span]) / 1e6;
    }
    return [...times.values()].sort((a, b) => b.ms - a.ms);
  }

  async #spans(): Promise<Span[]> {
    const passes: Span[] = [];
    for (const [i, set] of this.#sets.entries()) {
      const count = Math.min(passesOfSet, this.#passes - i * passesOfSet);
      const times = await this.#times(set, 2 * count);
      for (let p = 0; p < count; p++) passes.push([times[2 * p], times[2 * p + 1]]);
      set.destroy();
    }
    return passes;
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
export function busyNanoseconds(spans: readonly Span[]): number {
  let [busy, until] = [0n, 0n];
  for (const [begin, end] of spans.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))) {
    const from = begin > until ? begin : until;
    if (end > from) busy += end - from;
    if (end > until) until = end;
  }
  return Number(busy);
}
