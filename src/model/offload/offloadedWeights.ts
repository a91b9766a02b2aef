import { UsageError } from "../../core/index.js";
import type { Backend, WeightArea } from "../../kernels/index.js";
import type { OffloadOptions, OffloadPlan } from "./options.js";
import type { OffloadLayout } from "./placement.js";
import { type OffloadCounters, type SlotPool, zeroOffloadCounters } from "./residency.js";

/** Weights of a model that are read as they are needed: what is counted of them, and how they end. */
export abstract class OffloadedWeights implements Disposable {
  #counters = zeroOffloadCounters();
  #disposed = false;

  constructor(
    readonly backend: Backend,
    readonly area: WeightArea,
    readonly layout: OffloadLayout,
    readonly held: readonly { readonly pool: SlotPool }[],
    readonly plan: OffloadPlan,
    readonly options: OffloadOptions,
  ) {}

  get counters(): OffloadCounters {
    return this.#counters;
  }

  /** Reads the counters and sets them to 0. */
  takeCounters(): OffloadCounters {
    const counters = this.#counters;
    this.#counters = zeroOffloadCounters();
    return counters;
  }

  /** Waits for reads, and counts how long. */
  protected async wait(reads: Promise<void>): Promise<void> {
    const sinceMs = performance.now();
    await reads;
    this.checkOpen();
    this.#counters.waitMs += performance.now() - sinceMs;
  }

  /** Shows clusters of units to `use` one after the other, each in memory, while the next is read. */
  protected async visit<Cluster>(
    clusters: readonly Cluster[],
    begin: (cluster: Cluster) => { offsets: Uint32Array; ready: Promise<void> },
    use: (cluster: Cluster, offsets: Uint32Array, last: boolean) => void | Promise<void>,
  ): Promise<void> {
    const { pipelined = true } = this.options;
    let next = begin(clusters[0]);
    for (const [c, cluster] of clusters.entries()) {
      const current = next;
      const last = c + 1 === clusters.length;
      if (pipelined && !last) next = begin(clusters[c + 1]);
      await this.wait(current.ready);
      await use(cluster, current.offsets, last);
      // What is multiplied is done with before its slots may be read into.
      await this.backend.flush();
      this.checkOpen();
      if (!pipelined && !last) next = begin(clusters[c + 1]);
    }
  }

  /** For passes that have waited. @throws UsageError where the model was disposed of meanwhile */
  checkOpen(): void {
    if (this.#disposed) throw new UsageError("the model was disposed of while it ran");
  }

  /** Ends passes that wait for reads. What is being read has its place until it has come. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const ended = this.held.flatMap(({ pool }) => pool.ended ?? []);
    if (ended.length === 0) this.area[Symbol.dispose]();
    else void Promise.all(ended).then(() => this.area[Symbol.dispose]());
  }
}

/** @returns what opens memory for weights @throws UsageError for a backend that cannot multiply from such */
export function areaOpener(backend: Backend): (byteLength: number) => Promise<WeightArea> {
  if (backend.openArea !== undefined) return backend.openArea.bind(backend);
  throw new UsageError(
    `the ${backend.info.id} backend cannot run a model that is larger than memory; take the device "cpu"`,
  );
}
