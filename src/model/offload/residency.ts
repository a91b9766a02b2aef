import { StorageError, UsageError } from "../../core/index.js";
import type { ByteSource } from "../../io/index.js";
import type { WeightArea } from "../../kernels/index.js";

/** What was read and what was there already, since it was last asked. Counted, not estimated. */
export interface OffloadCounters {
  bytesRead: number;
  reads: number;
  /** Units that products needed, and those of them that were in memory. */
  units: number;
  hits: number;
  /** Milliseconds that products waited for reads; reads behind arithmetic do not count. */
  waitMs: number;
}

export const zeroOffloadCounters = (): OffloadCounters => ({ bytesRead: 0, reads: 0, units: 0, hits: 0, waitMs: 0 });

/** Where the bytes of the units of a stream lie in the file, in the order in which they lie in a slot. */
export interface UnitPlaces {
  readonly units: number;
  readonly parts: readonly { readonly at: number; readonly stride: number; readonly bytes: number }[];
}

/** How long units stay. */
export interface ResidencySettings {
  /** Tokens behind which a unit that was not used since is read again; default: as long as there is room. */
  readonly window?: number;
}

/** Neighbours in the file are read together up to this. */
const mostReadBytes = 1 << 20;
const absent = -1;

/**
 * Units of several streams in slots of one size: what was used longest ago makes room (LRU), pinned units stay. (LLM in a flash,
 * arXiv 2312.11514; PowerInfer-2, arXiv 2406.06282.)
 */
export class SlotPool {
  /** Of every slot: its unit, over all streams; when that was last used; neighbours in the order of use. */
  readonly #unitOf: Int32Array;
  readonly #usedAt: Float64Array;
  readonly #before: Int32Array;
  readonly #after: Int32Array;
  readonly #pinned: Uint8Array;
  readonly #slotOf: Int32Array;
  readonly #firstUnits: number[] = [];
  #pins = 0;
  /** All reads that were begun, and how many calls began those that have not ended. */
  #reading: Promise<unknown> = Promise.resolve();
  #underWay = 0;

  /**
   * @param first byte offset of the first slot in the area, not 0
   * @param slots how many there are, each of `slotBytes`
   */
  constructor(
    readonly area: WeightArea,
    readonly first: number,
    readonly slotBytes: number,
    readonly slots: number,
    readonly streams: readonly UnitPlaces[],
    readonly source: ByteSource,
    readonly counters: () => OffloadCounters,
    readonly settings: ResidencySettings = {},
  ) {
    this.#unitOf = new Int32Array(slots).fill(absent);
    this.#usedAt = new Float64Array(slots);
    // A ring through a head at the end: what follows it was used longest ago.
    this.#before = Int32Array.from({ length: slots + 1 }, (_, s) => (s === 0 ? slots : s - 1));
    this.#after = Int32Array.from({ length: slots + 1 }, (_, s) => (s === slots ? 0 : s + 1));
    this.#pinned = new Uint8Array(slots);
    let units = 0;
    for (const stream of streams) {
      this.#firstUnits.push(units);
      units += stream.units;
    }
    this.#slotOf = new Int32Array(units).fill(absent);
  }

  /** Slots that units may come and go in. */
  get free(): number {
    return this.slots - this.#pins;
  }

  /** Whether there is a slot for every unit. */
  get holdsAll(): boolean {
    return this.slots >= this.#slotOf.length;
  }

  /** Resolves when reads that are under way have ended, well or not; undefined where there are none. */
  get ended(): Promise<unknown> | undefined {
    return this.#underWay === 0 ? undefined : this.#reading;
  }

  offsetOf(slot: number): number {
    return this.first + slot * this.slotBytes;
  }

  /** Units of a stream that are in memory now. */
  isResident(stream: number, unit: number): boolean {
    return this.#slotOf[this.#firstUnits[stream] + unit] !== absent;
  }

  /** Reads units that then stay. */
  async pin(stream: number, units: ArrayLike<number>): Promise<void> {
    if (units.length > this.free) throw new UsageError(`${units.length} pinned units in ${this.free} slots`);
    const { offsets, ready } = this.begin(stream, units, 0);
    await ready;
    for (const offset of offsets) {
      const slot = (offset - this.first) / this.slotBytes;
      this.#pinned[slot] = 1;
      this.#unlink(slot);
    }
    this.#pins += units.length;
  }

  /**
   * Finds slots for units, no more than a third of those that are free, and begins to read what is missing. What lies in the slots that it
   * takes must be done with: of the two calls before this one everything stays.
   * @param token when: counts up
   * @param counted whether the units are needed, and not only expected
   * @returns byte offsets in the area, which hold the units once `ready` resolves
   */
  begin(
    stream: number,
    units: ArrayLike<number>,
    token: number,
    counted = true,
  ): { offsets: Uint32Array; hits: number; ready: Promise<void> } {
    const { window = Number.POSITIVE_INFINITY } = this.settings;
    const offsets = new Uint32Array(units.length);
    const base = this.#firstUnits[stream];
    const missing: { unit: number; slot: number }[] = [];
    // Those that are there are used first, so that none of them makes room for another.
    for (let pass = 0; pass < 2; pass++) {
      for (let u = 0; u < units.length; u++) {
        const id = base + units[u];
        let slot = this.#slotOf[id];
        if (pass === 0 ? slot === absent : offsets[u] !== 0) continue;
        if (slot === absent) {
          slot = this.#after[this.slots];
          const gone = this.#unitOf[slot];
          if (gone !== absent) this.#slotOf[gone] = absent;
          this.#unitOf[slot] = id;
          this.#slotOf[id] = slot;
          missing.push({ unit: units[u], slot });
        } else if (this.#pinned[slot] === 0 && token - this.#usedAt[slot] > window)
          missing.push({ unit: units[u], slot });
        this.#usedAt[slot] = token;
        if (this.#pinned[slot] === 0) this.#touch(slot);
        offsets[u] = this.offsetOf(slot);
      }
    }
    const counters = this.counters();
    if (counted) {
      counters.units += units.length;
      counters.hits += units.length - missing.length;
    }
    const read = missing.length === 0 ? undefined : this.#read(this.streams[stream], missing);
    // What counts as there may still be read for an earlier call.
    const ready = Promise.all([this.#reading, read]).then(() => {
      for (let u = 0; u < units.length; u++) {
        if (this.#slotOf[base + units[u]] !== absent) continue;
        throw new StorageError(`${this.source.name}: what an earlier call was reading did not come`, { code: "EIO" });
      }
    });
    this.#reading = ready.catch(() => {
      // What was not read is not there.
      for (const { unit } of missing) this.#slotOf[base + unit] = absent;
    });
    return { offsets, hits: units.length - missing.length, ready };
  }

  async #read({ parts }: UnitPlaces, missing: { unit: number; slot: number }[]): Promise<void> {
    missing.sort((a, b) => a.unit - b.unit);
    const reads: Promise<void>[] = [];
    // Parts that follow one another in the file are one.
    const runs: { at: number; stride: number; bytes: number; within: number }[] = [];
    let within = 0;
    for (const part of parts) {
      const last = runs.at(-1);
      if (last !== undefined && last.at + last.bytes === part.at && last.stride === part.stride)
        last.bytes += part.bytes;
      else runs.push({ ...part, within });
      within += part.bytes;
    }
    for (const run of runs) {
      for (let first = 0; first < missing.length; ) {
        let count = 1;
        // Where units follow one another without a gap they are read together.
        while (
          run.stride === run.bytes &&
          first + count < missing.length &&
          missing[first + count].unit === missing[first].unit + count &&
          (count + 1) * run.bytes <= mostReadBytes
        ) {
          count++;
        }
        reads.push(this.#readRun(run, missing.slice(first, first + count)));
        first += count;
      }
    }
    this.#underWay++;
    const ended = await Promise.allSettled(reads);
    this.#underWay--;
    // Not before all have ended: none may write into a slot that was given away.
    const failed = ended.find(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
  }

  async #readRun(
    { at, stride, bytes, within }: { at: number; stride: number; bytes: number; within: number },
    units: readonly { unit: number; slot: number }[],
  ): Promise<void> {
    const counters = this.counters();
    counters.reads++;
    counters.bytesRead += units.length * bytes;
    const from = at + units[0].unit * stride;
    const target = (slot: number) => this.area.bytes(this.offsetOf(slot) + within, bytes);
    const first = target(units[0].slot);
    // Memory that is not shared may move while a read waits.
    if (units.length === 1 && typeof SharedArrayBuffer !== "undefined" && first.buffer instanceof SharedArrayBuffer) {
      await this.source.read(from, bytes, first);
      return;
    }
    const all = await this.source.read(from, units.length * bytes);
    for (const [u, { slot }] of units.entries()) target(slot).set(all.subarray(u * bytes, (u + 1) * bytes));
  }

  /** Makes a slot the last used. */
  #touch(slot: number): void {
    this.#unlink(slot);
    const last = this.#before[this.slots];
    this.#after[last] = slot;
    this.#before[slot] = last;
    this.#after[slot] = this.slots;
    this.#before[this.slots] = slot;
  }

  #unlink(slot: number): void {
    this.#after[this.#before[slot]] = this.#after[slot];
    this.#before[this.#after[slot]] = this.#before[slot];
  }
}
