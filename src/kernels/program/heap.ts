/** Where things lie in one memory: first fit over a list of free ranges, merged when they meet. Offsets in bytes. */
export class Heap {
  /** Free ranges below `#top`, ascending, never adjacent. */
  readonly #free: { start: number; end: number }[] = [];
  readonly #sizes = new Map<number, number>();
  #top: number;

  constructor(start: number) {
    this.#top = start;
  }

  /** End of everything that is allocated. */
  get top(): number {
    return this.#top;
  }

  /** Whether `byteLength` more fit below `limit`. */
  fits(byteLength: number, limit: number): boolean {
    const size = align(byteLength);
    return this.#top + size <= limit || this.#free.some((range) => range.end - range.start >= size);
  }

  /** @returns the offset of `byteLength` bytes, a multiple of 64 */
  allocate(byteLength: number): number {
    const size = align(byteLength);
    const index = this.#free.findIndex((range) => range.end - range.start >= size);
    let offset = this.#top;
    if (index < 0) this.#top += size;
    else {
      const range = this.#free[index];
      offset = range.start;
      range.start += size;
      if (range.start === range.end) this.#free.splice(index, 1);
    }
    this.#sizes.set(offset, size);
    return offset;
  }

  release(offset: number): void {
    const size = this.#sizes.get(offset);
    if (size === undefined) throw new RangeError(`nothing is allocated at ${offset}`);
    this.#sizes.delete(offset);
    let at = this.#free.findIndex((range) => range.start > offset);
    if (at < 0) at = this.#free.length;
    this.#free.splice(at, 0, { start: offset, end: offset + size });
    const next = this.#free[at + 1];
    if (next !== undefined && next.start === offset + size) {
      this.#free[at].end = next.end;
      this.#free.splice(at + 1, 1);
    }
    const previous = this.#free[at - 1];
    if (previous !== undefined && previous.end === offset) {
      previous.end = this.#free[at].end;
      this.#free.splice(at, 1);
    }
    // What is behind everything else need not be there: a memory that could not grow so far still serves what it has.
    if (this.#free.at(-1)?.end === this.#top) this.#top = this.#free.pop()!.start;
  }
}

/** Cache lines are 64 bytes; one more between neighbours keeps vector loads past an end inside the memory. */
const align = (byteLength: number) => Math.ceil(byteLength / 64) * 64 + 64;
