import { DeviceError, UsageError } from "../../core/index.js";
import { type Activation, type KvCache, slotsOfBlock } from "../../kernels/index.js";
import { kvBytesPerPosition, type Model } from "../../model/index.js";
import { type PagePool, PageTable } from "./pageTable.js";

/** How many pages `grow` begins with, where not more are wanted at once. */
const firstPages = 16;

/** What a pool of pages has room for. */
export interface KvPagesOptions {
  /** Bytes of keys and values at most, in whole pages; while they are copied to a larger cache, of both. */
  maxBytes: number;
  /** Of those, bytes to begin with; `grow` takes more. Default: all. */
  firstBytes?: number;
  /** Tokens of one sequence at most; default as many as the model was made for. */
  context?: number;
}

/**
 * Keys and values of many sequences of a model in one cache, given out in pages of 32 tokens (PagedAttention, arXiv
 * 2309.06180). Sequences whose texts begin alike have the same pages for it, and a page is copied before one of them writes
 * where others read. Attention reads the pages of a sequence as a list of key blocks, so that where they lie decides no bit.
 * @example
 * using pages = new KvPages(model, { maxBytes: 256e6 });
 * using first = new Sequence(model, 512, { pages });
 * await first.run(prompt);
 * using second = new Sequence(model, 512, { pages });
 * second.copyFrom(first, prompt.length); // takes no memory but for the last tokens
 */
export class KvPages implements PagePool, Disposable {
  /** Bytes of the keys and values of a page, in all layers. */
  readonly pageBytes: number;
  readonly #context: number;
  #cache: KvCache | undefined;
  /** By page, sequences that have it; 0 for one that is free. */
  #users: number[] = [];
  #free = 0;
  #most: number;
  /** Zeros for a page of each width, which pages begin with. */
  readonly #zeros = new Map<number, Activation>();

  /** @throws UsageError for room for less than a page, DeviceError where the machine has less */
  constructor(
    readonly model: Model,
    { maxBytes, firstBytes = maxBytes, context = model.config.maxPositions }: KvPagesOptions,
  ) {
    this.#context = Math.min(context, model.config.maxPositions);
    this.pageBytes = slotsOfBlock * kvBytesPerPosition(model.config);
    this.#most = Math.floor(maxBytes / this.pageBytes);
    if (!(this.#most >= 1)) {
      throw new UsageError(
        `pages of keys and values in ${maxBytes} bytes; ${slotsOfBlock} tokens take ${this.pageBytes}`,
      );
    }
    const first = Math.min(this.#most, Math.floor(firstBytes / this.pageBytes));
    if (first > 0) this.#make(first);
  }

  /** The cache in which the pages lie; another one after `grow`. @throws UsageError before there is one */
  get cache(): KvCache {
    if (this.#cache === undefined)
      throw new UsageError("pages that were disposed of, or that nothing has made yet: grow");
    return this.#cache;
  }

  /** Pages at most: fewer than wanted once the machine had no room for more. */
  get most(): number {
    return this.#most;
  }

  /** Pages that sequences have, each counted once. */
  get used(): number {
    return this.#users.length - this.#free;
  }

  /** Pages that sequences would have beside those if each had its own. */
  get spared(): number {
    return this.#users.reduce((sum, users) => sum + Math.max(0, users - 1), 0);
  }

  /** Pages that can be taken without `grow`. */
  get free(): number {
    return this.#free;
  }

  /** Pages that there is memory for now, whether anyone has them or not. */
  get count(): number {
    return this.#users.length;
  }

  /** Bytes of all pages that there is memory for. */
  get byteLength(): number {
    return this.count * this.pageBytes;
  }

  /**
   * Pages of the cache that `grow` would make for so many more.
   * @param room pages at most, of both caches while one is copied to the other
   * @returns undefined where there is no room: once no sequence has a page, nothing is copied, and there may be
   */
  grown(pages: number, room = this.most): number | undefined {
    const most = Math.min(room, this.most);
    const copied = this.used === 0 ? 0 : this.count;
    const wanted = this.used + pages;
    if (wanted + copied > most) return undefined;
    const next = Math.max(wanted, 2 * this.count, firstPages);
    // From a third of the room on there would be none for a step after this one.
    return 3 * next > most ? most - copied : next;
  }

  /**
   * Makes room for so many more pages, by a copy of all to a larger cache. Not while passes run or are under way: they hold the
   * cache that was there.
   * @param room see `grown`
   * @returns whether there is room now
   * @throws DeviceError where there is none for the first pages
   */
  grow(pages: number, room = this.most): boolean {
    const wanted = this.used + pages;
    if (wanted <= this.count) return true;
    const grown = this.grown(pages, room);
    if (grown === undefined) return false;
    this.shed();
    const now = this.count;
    for (const count of new Set([grown, wanted])) {
      try {
        this.#make(count);
        return true;
      } catch (error) {
        if (!(error instanceof DeviceError) || (now === 0 && count === wanted)) throw error;
      }
    }
    this.#most = now;
    return false;
  }

  /** Gives the memory back where no sequence has a page. @returns whether nothing is held now */
  shed(): boolean {
    if (this.used > 0) return false;
    this.#cache?.[Symbol.dispose]();
    this.#cache = undefined;
    this.#users = [];
    this.#free = 0;
    return true;
  }

  /** A cache of so many pages, with what they hold. */
  #make(count: number): void {
    const [before, now] = [this.#cache, this.#users.length];
    const cache = this.model.createCache(this.#context, { slots: count * slotsOfBlock });
    try {
      // Memory is taken when a layer is written first: here, and not in the pass of a text.
      this.clear(now, cache);
      if (before !== undefined) this.model.backend.copyKv(before, cache, now * slotsOfBlock);
    } catch (error) {
      cache[Symbol.dispose]();
      throw error;
    }
    before?.[Symbol.dispose]();
    this.#cache = cache;
    while (this.#users.length < count) this.#users.push(0);
    this.#free += count - now;
  }

  /** A page for one sequence: the first one that is free. @throws UsageError where none is */
  take(): number {
    const page = this.#users.indexOf(0);
    if (page < 0) {
      throw new UsageError(
        `all ${this.most * slotsOfBlock} places for keys and values are taken; end other sequences first`,
      );
    }
    this.#users[page] = 1;
    this.#free--;
    return page;
  }

  /** Of one more sequence, which has none yet. */
  openTable(): PageTable {
    return new PageTable(this);
  }

  /** Lets one more sequence have a page. */
  share(page: number): void {
    this.#users[page]++;
  }

  isShared(page: number): boolean {
    return this.#users[page] > 1;
  }

  /** One sequence has it no more. */
  release(page: number): void {
    this.#users[page]--;
    if (this.#users[page] === 0) this.#free++;
  }

  /**
   * Enqueues that all slots of a page hold zeros: what is read beside the tokens that it has weighs nothing, but must be numbers,
   * and none that another text left.
   */
  clear(page: number, cache = this.cache): void {
    const { backend } = this.model;
    for (const [layer, { heads, key, value, valueInKey }] of cache.spec.layers.entries()) {
      const values = valueInKey ? undefined : this.#zerosOf(heads * value);
      backend.appendKv(cache, layer, this.#zerosOf(heads * key), values, page * slotsOfBlock);
    }
  }

  /** Enqueues a copy of the first slots of a page to another one. */
  copy(from: number, to: number, slots: number): void {
    if (slots === 0) return;
    for (const [layer, { heads }] of this.cache.spec.layers.entries()) {
      const each = (of: (head: number, slot: number) => number) =>
        Uint32Array.from({ length: heads * slots }, (_, i) => of(Math.floor(i / slots), i % slots));
      this.model.moveKv(this.cache, layer, {
        heads: each((head) => head),
        from: each((_, slot) => from * slotsOfBlock + slot),
        to: each((_, slot) => to * slotsOfBlock + slot),
      });
    }
  }

  #zerosOf(cols: number): Activation {
    let zeros = this.#zeros.get(cols);
    if (zeros === undefined) {
      const { backend } = this.model;
      zeros = backend.allocate(slotsOfBlock, cols);
      backend.write(zeros, new Float32Array(slotsOfBlock * cols));
      this.#zeros.set(cols, zeros);
    }
    return zeros;
  }

  /** After its sequences. */
  [Symbol.dispose](): void {
    for (const zeros of this.#zeros.values()) this.model.backend.release(zeros);
    this.#zeros.clear();
    this.#cache?.[Symbol.dispose]();
    this.#cache = undefined;
  }
}
