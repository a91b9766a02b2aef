import { UsageError } from "../../core/index.js";
import { kvBytesPerPosition, type Model } from "../../model/index.js";
import { Sequence } from "../../runtime/index.js";
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
 * Keys and values of all sequences of a model, under a limit. Those of a text that ended stay until the room is needed, so that
 * a text that begins like it (the next turn of a chat, the same instructions) need not run its beginning again.
 */
export class SequenceMemory implements Disposable {
  readonly #all: HeldSequence[] = [];
  #clock = 0;

  /** @param maxBytes of keys and values, busy and kept */
  constructor(
    readonly model: Model,
    readonly maxBytes: number,
  ) {}

  get bytes(): number {
    return this.#all.reduce((sum, { sequence }) => sum + sequence.byteLength, 0);
  }

  /** Bytes that a text of so many tokens takes at most. */
  bytesFor(capacity: number): number {
    return kvBytesPerPosition(this.model.config) * capacity;
  }

  /**
   * A sequence for a prompt, with as much of it run already as another one has.
   * @param share whether tokens of others may be used
   * @returns undefined while others take the room
   */
  acquire(prompt: Uint32Array, capacity: number, variant: Variant, share: boolean): HeldSequence | undefined {
    const alike = share ? this.#all.filter((held) => held.variant.key === variant.key) : [];
    const common = new Map(alike.map((held) => [held, commonTokens(prompt, held)]));
    const most = (list: readonly HeldSequence[]) =>
      list.toSorted((a, b) => common.get(b)! - common.get(a)! || b.usedAt - a.usedAt)[0] as HeldSequence | undefined;
    const fitting = most(alike.filter((held) => !held.busy && held.sequence.capacity >= capacity));
    if (fitting !== undefined) {
      const shared = common.get(fitting)!;
      // The same text goes on: nothing is lost.
      if (shared >= leastShared && shared >= fitting.exact / 2) return this.#goOn(fitting, shared);
    }
    const donor = most(alike.filter(copies));
    const worth = donor !== undefined && common.get(donor)! >= leastShared ? donor : undefined;
    if (!this.#makeRoom(this.bytesFor(capacity), worth)) return undefined;
    const { thresholds, attention, kv, adapters } = variant;
    const sequence = new Sequence(this.model, capacity, { thresholds, attention, kv, adapters });
    const held: HeldSequence = { sequence, variant, exact: 0, busy: true, usedAt: this.#clock++ };
    this.#all.push(held);
    if (worth !== undefined && this.#all.includes(worth)) {
      const shared = Math.min(common.get(worth)!, capacity);
      sequence.copyFrom(worth.sequence, shared);
      held.exact = shared;
      worth.usedAt = this.#clock++;
    }
    return held;
  }

  /** Gives a sequence back; its tokens may serve others. */
  release(held: HeldSequence): void {
    held.busy = false;
    if (held.exact === 0) this.#drop(held);
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

  /** Lets go of what was not used for longest. */
  #makeRoom(bytes: number, spare: HeldSequence | undefined): boolean {
    if (bytes > this.maxBytes) {
      throw new UsageError(
        `keys and values of this text take ${bytes} bytes; the server has room for ${this.maxBytes}`,
      );
    }
    const busyBytes = this.#all.reduce((sum, { busy, sequence }) => sum + (busy ? sequence.byteLength : 0), 0);
    if (busyBytes + bytes > this.maxBytes) return false;
    const idle = this.#all.filter(({ busy }) => !busy).sort((a, b) => a.usedAt - b.usedAt);
    const order =
      spare === undefined ? idle : [...idle.filter((held) => held !== spare), ...idle.filter((held) => held === spare)];
    for (const held of order) {
      if (this.bytes + bytes <= this.maxBytes) break;
      this.#drop(held);
    }
    return true;
  }

  #drop(held: HeldSequence): void {
    this.#all.splice(this.#all.indexOf(held), 1);
    held.sequence[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const held of [...this.#all]) this.#drop(held);
  }
}

/** Whether keys and values can be copied from one sequence to another. */
export const copies = ({ variant: { kv } }: Pick<HeldSequence, "variant">): boolean =>
  kv?.eviction === undefined && kv?.codes === undefined;

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
