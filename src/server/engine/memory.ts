import { DeviceError, UsageError } from "../../core/index.js";
import { slotsOfBlock } from "../../kernels/index.js";
import { kvBytesPerPosition, type Model } from "../../model/index.js";
import { KvPages, Sequence } from "../../runtime/index.js";
import { inPages, keepsItsOwnCache, pagesFor } from "../../runtime/internal.js";
import type { Variant } from "./request.js";

/** A sequence with what is known about its tokens. */
export interface HeldSequence {
  readonly sequence: Sequence;
  readonly variant: Variant;
  /** First tokens that a prompt with the same beginning would have run just so. */
  exact: number;
  busy: boolean;
  usedAt: number;
}

/**
 * Notes which tokens a prompt with the same beginning would have run just so, after a pass. Dense tokens are the same whatever
 * comes behind them; sparse ones depend on where the prompt ended.
 * @param sparseFrom first position that thresholds apply to
 */
export function noteExact(held: HeldSequence, sparseFrom: number): void {
  const { sequence, variant } = held;
  const effective = variant.thresholds ?? sequence.model.thresholds;
  const dense = effective === undefined || effective === "dense";
  held.exact = dense ? sequence.length : Math.min(sequence.length, sparseFrom);
}

/** Fewer tokens than this are run again sooner than copied. */
const leastShared = 16;

/**
 * Keys and values of all sequences of a model, under a limit, in pages that texts with the same beginning share. Those of a text
 * that ended stay until the room is needed, so that a text that begins like it (the next turn of a chat, the same instructions)
 * need not run its beginning again. Sequences that throw away, make codes or look for keys have caches of their own.
 */
export class SequenceMemory implements Disposable {
  readonly pages: KvPages;
  readonly #all: HeldSequence[] = [];
  #clock = 0;
  /** Passes under way, which hold the cache that the pages lie in. */
  #passes = 0;
  /** Pages that were missing meanwhile; new passes wait until they are there. */
  #growth: { pages: number; readonly done: Promise<void>; readonly end: () => void } | undefined;

  /** @param maxBytes of keys and values, busy and kept @param context tokens of a text at most */
  constructor(
    readonly model: Model,
    readonly maxBytes: number,
    context: number,
  ) {
    // A limit below a page refuses every text, and no model.
    const leastBytes = pagesFor(1) * slotsOfBlock * kvBytesPerPosition(model.config);
    this.pages = new KvPages(model, { maxBytes: Math.max(leastBytes, maxBytes), firstBytes: 0, context });
  }

  /** Held, busy and kept; what texts share is counted once. */
  get bytes(): number {
    return this.pages.used * this.pages.pageBytes + ownBytes(this.#all);
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
   * @throws UsageError for a text that never fits
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

  /** With what is held of `donor` where there is room beside it. @returns undefined without room */
  #make(capacity: number, variant: Variant, donor: HeldSequence | undefined, shared: number): HeldSequence | undefined {
    const { pages } = this;
    const paged = inPages(variant, this.model);
    const all = pagesFor(capacity);
    const missing = donor === undefined ? all : all - Math.floor(shared / slotsOfBlock);
    const perToken = kvBytesPerPosition(this.model.config);
    this.#checkFits(paged ? all * pages.pageBytes : perToken * capacity);
    if (!this.#makeRoom(paged ? missing * pages.pageBytes : perToken * capacity, donor)) return undefined;
    if (paged && !this.#makeFree(missing)) return undefined;
    const { thresholds, attention, kv, adapters } = variant;
    const options = { thresholds, attention, kv, adapters, ...(paged && { pages }) };
    const sequence = new Sequence(this.model, capacity, options);
    const held: HeldSequence = { sequence, variant, exact: 0, busy: true, usedAt: this.#clock++ };
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

  /** What there is room for: less than was allowed once the machine had no more. */
  get #limit(): number {
    return Math.min(this.maxBytes, this.pages.most * this.pages.pageBytes);
  }

  /** Lets go of what was not used for longest, but for `donor`. @returns whether there is room then; if not, all stays */
  #makeRoom(bytes: number, donor: HeldSequence | undefined): boolean {
    const stay = this.#all.filter((held) => held.busy || held === donor);
    if (this.#bytesOf(stay) + bytes > this.#limit) return false;
    const idle = this.#all.filter((held) => !stay.includes(held)).sort((a, b) => a.usedAt - b.usedAt);
    for (const held of idle) {
      if (this.bytes + bytes <= this.#limit) break;
      this.#drop(held);
    }
    return true;
  }

  /** Sees to it that so many pages can be taken: in a larger cache, once no pass holds the one that is there. */
  #makeFree(pages: number): boolean {
    if (this.pages.free >= pages) return true;
    if (this.#passes === 0) return this.pages.grow(pages);
    if (this.#growth === undefined) {
      let end = () => {};
      const done = new Promise<void>((resolve) => {
        end = resolve;
      });
      this.#growth = { pages, done, end };
    }
    this.#growth.pages = Math.max(this.#growth.pages, pages);
    return false;
  }

  #grow(): void {
    const growth = this.#growth;
    if (growth === undefined) return;
    this.#growth = undefined;
    try {
      this.pages.grow(growth.pages);
    } catch (error) {
      // Whoever waits for it asks again and is told; the pass that ended has nothing to do with it.
      if (!(error instanceof DeviceError)) throw error;
    } finally {
      growth.end();
    }
  }

  #bytesOf(list: readonly HeldSequence[]): number {
    const pages = new Set(list.flatMap(({ sequence }) => sequence.pages));
    return pages.size * this.pages.pageBytes + ownBytes(list);
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

/** Bytes of caches that belong to one sequence. */
const ownBytes = (list: readonly HeldSequence[]): number =>
  list.reduce((sum, { sequence, variant }) => sum + (inPages(variant, sequence.model) ? 0 : sequence.byteLength), 0);

/** Whether keys and values can be copied from one sequence to another. */
export const copies = ({ variant: { kv } }: Pick<HeldSequence, "variant">, model: Model): boolean =>
  kv?.eviction === undefined && kv?.codes === undefined && !keepsItsOwnCache(model);

/** Tokens at the beginning that are the same, at least one less than the prompt has: something has to run. */
export function commonTokens(
  prompt: Uint32Array,
  { sequence, exact }: Pick<HeldSequence, "sequence" | "exact">,
): number {
  return commonLength(prompt, sequence.tokens, Math.min(exact, sequence.length, prompt.length - 1));
}

/** Tokens at the beginning of both that are the same, of the first `most`. */
export function commonLength(a: ArrayLike<number>, b: ArrayLike<number>, most: number): number {
  let common = 0;
  while (common < most && a[common] === b[common]) common++;
  return common;
}
