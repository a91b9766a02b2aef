import { DeviceError, UsageError } from "../../core/index.js";
import { slotsOfBlock } from "../../kernels/index.js";
import { kvBytesPerPosition, type Model } from "../../model/index.js";
import { KvPages, Sequence } from "../../runtime/index.js";
import { inPages, mostCacheBytes, pagesFor } from "../../runtime/internal.js";
import { commonTokens, copies, type HeldSequence } from "./heldSequence.js";
import type { Variant } from "./request.js";

/** Fewer tokens than this are run again sooner than copied. */
const leastShared = 16;

/** Memory that models share, as one of them sees it. */
export interface SharedRoom {
  /** Bytes of keys and values that it could have if no other model was there. */
  readonly most: number;
  /** Sees to it that it may take so many bytes more, by what others hold and do not need. @returns whether it may */
  take(bytes: number): boolean;
  /** What a text is told that others leave no room for. */
  busy(): Error;
}

/**
 * Keys and values of all sequences of a model, under a limit, in pages that texts with the same beginning share. Those of a text
 * that ended stay until the room is needed, so that a text that begins like it (the next turn of a chat, the same instructions)
 * need not run its beginning again. Sequences that throw away, make codes or look for keys have caches of their own.
 *
 * The limit holds for `taken`: the memory of all pages, also of those that are free again, while they are copied to more of both,
 * and what caches of their own may come to.
 */
export class SequenceMemory implements Disposable {
  readonly pages: KvPages;
  readonly #all: HeldSequence[] = [];
  #clock = 0;
  /** Passes under way, which hold the cache that the pages lie in. */
  #passes = 0;
  /** Pages that were missing meanwhile; new passes wait until they are there. */
  #growth: { pages: number; readonly done: Promise<void>; readonly end: () => void } | undefined;

  /**
   * @param maxBytes of keys and values, busy and kept
   * @param context tokens of a text at most
   * @param shared asked before memory is taken; left out: nobody else has any
   */
  constructor(
    readonly model: Model,
    readonly maxBytes: number,
    context: number,
    readonly shared?: SharedRoom,
  ) {
    // A limit below a page refuses every text, and no model.
    const leastBytes = pagesFor(1) * slotsOfBlock * kvBytesPerPosition(model.config);
    this.pages = new KvPages(model, { maxBytes: Math.max(leastBytes, maxBytes), firstBytes: 0, context });
  }

  /** Held, busy and kept; what texts share is counted once. */
  get bytes(): number {
    const own = this.#all.reduce((sum, { sequence, ownBytes }) => sum + (ownBytes === 0 ? 0 : sequence.byteLength), 0);
    return this.pages.used * this.pages.pageBytes + own;
  }

  /** Taken or promised: what lies in pages or may come to, and caches of their own as large as they may become. */
  get taken(): number {
    return this.pages.byteLength + ownBytesOf(this.#all);
  }

  /** What would be held beside that if nothing was shared. */
  get sharedBytes(): number {
    return this.pages.spared * this.pages.pageBytes;
  }

  /** Resolves once there are pages that were missing while passes ran, which a text was refused for; else undefined. */
  get growing(): Promise<void> | undefined {
    return this.#growth?.done;
  }

  /** Runs a pass over sequences of this memory; meanwhile the pages stay in one place. */
  async duringPass<T>(work: () => Promise<T>): Promise<T> {
    while (this.#growth !== undefined) await this.#growth.done;
    this.#passes++;
    try {
      return await work();
    } finally {
      this.#passes--;
      if (this.#passes === 0) this.#grow();
    }
  }

  /**
   * A sequence for a prompt, with as much of it run already as another one has.
   * @param share whether tokens of others may be used
   * @returns undefined while others take the room, or while it cannot be made
   * @throws UsageError for a text that never fits, `SharedRoom.busy` where other models leave no room
   */
  acquire(prompt: Uint32Array, capacity: number, variant: Variant, share: boolean): HeldSequence | undefined {
    const alike = share ? this.#all.filter((held) => held.variant.key === variant.key) : [];
    const common = new Map(alike.map((held) => [held, commonTokens(prompt, held)]));
    const most = (list: readonly HeldSequence[]) =>
      list.toSorted((a, b) => common.get(b)! - common.get(a)! || b.usedAt - a.usedAt)[0] as HeldSequence | undefined;
    if (!inPages(variant, this.model)) {
      const fitting = most(alike.filter((held) => !held.busy && held.sequence.capacity >= capacity));
      const shared = fitting === undefined ? 0 : common.get(fitting)!;
      // The same text goes on: nothing is lost.
      if (fitting !== undefined && shared >= leastShared && shared >= fitting.exact / 2) {
        return this.#goOn(fitting, shared);
      }
    }
    const donor = most(alike.filter((held) => copies(held, this.model)));
    const shared = donor === undefined ? 0 : Math.min(common.get(donor)!, capacity);
    const begun = shared < leastShared ? undefined : this.#make(capacity, variant, donor, shared);
    // With the room that the other one takes, if nobody uses it, there may be enough.
    return begun ?? this.#make(capacity, variant, undefined, 0);
  }

  /** Gives a sequence back; its tokens may serve others. */
  release(held: HeldSequence): void {
    held.busy = false;
    held.sequence.trim();
    if (held.exact === 0) this.#drop(held);
  }

  /** Gives back what no text needs now. @returns whether anything was held */
  shed(): boolean {
    const before = this.taken;
    for (const held of this.#all.filter(({ busy }) => !busy)) this.#drop(held);
    this.pages.shed();
    return this.taken < before;
  }

  /** With what is held of `donor` where there is room beside it. @returns undefined without room */
  #make(capacity: number, variant: Variant, donor: HeldSequence | undefined, shared: number): HeldSequence | undefined {
    const { pages } = this;
    const paged = inPages(variant, this.model);
    const all = pagesFor(capacity);
    const ownBytes = paged ? 0 : mostCacheBytes(this.model, capacity, variant);
    this.#checkFits(paged ? all * pages.pageBytes : ownBytes);
    const missing = donor === undefined ? all : all - Math.floor(shared / slotsOfBlock);
    if (!this.#makeRoom(paged ? { pages: missing } : { ownBytes }, donor)) return undefined;
    const { thresholds, attention, kv, adapters } = variant;
    const options = { thresholds, attention, kv, adapters, ...(paged && { pages }) };
    const sequence = new Sequence(this.model, capacity, options);
    const held: HeldSequence = { sequence, variant, ownBytes, exact: 0, busy: true, usedAt: this.#clock++ };
    this.#all.push(held);
    try {
      if (donor !== undefined) {
        sequence.copyFrom(donor.sequence, shared);
        held.exact = shared;
        donor.usedAt = this.#clock++;
        // The same text goes on: nothing of it is lost.
        if (paged && !donor.busy && shared >= donor.exact) this.#drop(donor);
      }
      sequence.reserve();
    } catch (error) {
      this.#drop(held);
      throw error;
    }
    return held;
  }

  #goOn(held: HeldSequence, shared: number): HeldSequence {
    const { sequence } = held;
    const kept = sequence.canRewind(shared) ? shared : 0;
    sequence.rewind(kept);
    held.exact = Math.min(held.exact, kept);
    held.busy = true;
    held.usedAt = this.#clock++;
    return held;
  }

  #checkFits(bytes: number): void {
    const room = this.#limit;
    if (bytes <= room) return;
    throw new UsageError(`keys and values of this text take ${bytes} bytes; the server has room for ${room}`);
  }

  /** What there is room for: less than was allowed once the machine had no more, or beside the weights. */
  get #limit(): number {
    return Math.min(
      this.maxBytes,
      this.pages.most * this.pages.pageBytes,
      this.shared?.most ?? Number.POSITIVE_INFINITY,
    );
  }

  /**
   * Makes room, where it must of what was not used for longest, but for `donor`.
   * @returns whether there is room now; where there cannot be, all stays
   */
  #makeRoom(wanted: Wanted, donor: HeldSequence | undefined): boolean {
    let there = this.#find(wanted);
    if (there === "no") {
      const stay = this.#all.filter((held) => held.busy || held === donor);
      if (!this.#possible(wanted, stay)) return false;
      const inPages = stay.some(({ ownBytes }) => ownBytes === 0);
      // Pages that are free again are no room for others before all are.
      const helps = (held: HeldSequence) => "pages" in wanted || !inPages || held.ownBytes > 0;
      const idle = this.#all.filter((held) => !stay.includes(held) && helps(held)).sort((a, b) => a.usedAt - b.usedAt);
      for (const held of idle) {
        this.#drop(held);
        there = this.#find(wanted);
        if (there !== "no") break;
      }
    }
    if (there === "no" && donor === undefined && this.shared !== undefined && !this.#all.some(({ busy }) => busy)) {
      throw this.shared.busy();
    }
    return there === "now";
  }

  /** Whether there is room where only `stay` are held, as far as it is this memory's to say. */
  #possible(wanted: Wanted, stay: readonly HeldSequence[]): boolean {
    const { pages } = this;
    const used = new Set(stay.flatMap(({ sequence }) => sequence.pages)).size;
    const kept = used === 0 ? 0 : pages.count;
    const room = this.#limit - ownBytesOf(stay);
    if ("ownBytes" in wanted) return kept * pages.pageBytes + wanted.ownBytes <= room;
    return pages.count - used >= wanted.pages || (kept + used + wanted.pages) * pages.pageBytes <= room;
  }

  /** Takes pages that are missing, in a larger cache, "later" where passes hold the one that is there. */
  #find(wanted: Wanted): "now" | "later" | "no" {
    const { pages } = this;
    if ("ownBytes" in wanted) {
      const fits = () => this.taken + wanted.ownBytes <= this.#limit && this.#mayTake(wanted.ownBytes);
      return fits() || (pages.shed() && fits()) ? "now" : "no";
    }
    if (pages.free >= wanted.pages) return "now";
    if (this.#passes === 0 || pages.used === 0) return this.#growBy(wanted.pages) ? "now" : "no";
    if (pages.grown(wanted.pages, this.#roomOfPages) === undefined) return "no";
    if (this.#growth === undefined) {
      let end = () => {};
      const done = new Promise<void>((resolve) => {
        end = resolve;
      });
      this.#growth = { pages: wanted.pages, done, end };
    }
    this.#growth.pages = Math.max(this.#growth.pages, wanted.pages);
    return "later";
  }

  /** Beside caches of their own. */
  get #roomOfPages(): number {
    return Math.floor((this.#limit - ownBytesOf(this.#all)) / this.pages.pageBytes);
  }

  /** In steps; where other models leave no room for that, just as many as are missing. */
  #growBy(missing: number): boolean {
    const { pages } = this;
    const copied = pages.used === 0 ? 0 : pages.count;
    const room = this.#roomOfPages;
    for (const most of [room, Math.min(room, copied + pages.used + missing)]) {
      const grown = pages.grown(missing, most);
      if (grown === undefined) return false;
      const more = grown + copied - pages.count;
      if (this.#mayTake(more * pages.pageBytes)) return pages.grow(missing, most);
    }
    return false;
  }

  #mayTake(bytes: number): boolean {
    return this.shared?.take(bytes) ?? true;
  }

  #grow(): void {
    const growth = this.#growth;
    if (growth === undefined) return;
    this.#growth = undefined;
    try {
      this.#growBy(growth.pages);
    } catch (error) {
      // Whoever waits for it asks again and is told; the pass that ended has nothing to do with it.
      if (!(error instanceof DeviceError)) throw error;
    } finally {
      growth.end();
    }
  }

  #drop(held: HeldSequence): void {
    this.#all.splice(this.#all.indexOf(held), 1);
    held.sequence[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const held of [...this.#all]) this.#drop(held);
    this.pages[Symbol.dispose]();
  }
}

/** What a text is to have: pages that are missing, or a cache of its own. */
type Wanted = { readonly pages: number } | { readonly ownBytes: number };

/** What caches of their own may come to. */
const ownBytesOf = (list: readonly HeldSequence[]): number =>
  list.reduce((sum, { sequence, ownBytes }) => sum + (ownBytes === 0 ? 0 : Math.max(ownBytes, sequence.byteLength)), 0);
