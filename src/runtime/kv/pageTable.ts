import { UsageError } from "../../core/index.js";
import { slotsOfBlock } from "../../kernels/index.js";
import type { SlotRun } from "../../model/index.js";

/** Pages that so many tokens fill or begin. */
export const pagesFor = (tokens: number): number => Math.ceil(tokens / slotsOfBlock);

/** What a table of pages asks of those who give them out: `KvPages`. */
export interface PagePool {
  readonly free: number;
  take(): number;
  share(page: number): void;
  isShared(page: number): boolean;
  release(page: number): void;
  clear(page: number): void;
  copy(from: number, to: number, slots: number): void;
}

/** The pages of one sequence, in the order of its tokens. */
export class PageTable implements Disposable {
  readonly #list: number[] = [];
  /** Pages at the beginning of the list that hold numbers of this text, or zeros. */
  #begun = 0;

  constructor(readonly pages: PagePool) {}

  get list(): readonly number[] {
    return this.#list;
  }

  /** Takes what is missing for so many tokens. @throws UsageError where there is no room */
  reserve(tokens: number): void {
    const missing = pagesFor(tokens) - this.#list.length;
    if (missing > 0 && this.pages.free < missing) {
      throw new UsageError(
        `${tokens} tokens want ${missing} more pages of keys and values, and ${this.pages.free} are free; end other sequences first`,
      );
    }
    for (let i = 0; i < missing; i++) this.#list.push(this.pages.take());
  }

  /** Gives back what is behind the first tokens. */
  trim(tokens: number): void {
    for (const page of this.#list.splice(pagesFor(tokens))) this.pages.release(page);
    this.#begun = Math.min(this.#begun, this.#list.length);
  }

  /** Has the pages of another one for its first tokens, instead of its own, and a copy of those that fill no page. */
  begin(other: PageTable, tokens: number): void {
    this.trim(0);
    const whole = Math.floor(tokens / slotsOfBlock);
    for (const page of other.#list.slice(0, whole)) {
      this.pages.share(page);
      this.#list.push(page);
    }
    this.#begun = whole;
    const rest = tokens % slotsOfBlock;
    if (rest === 0) return;
    this.reserve(tokens);
    this.pages.clear(this.#list[whole]);
    this.#begun = whole + 1;
    this.pages.copy(other.#list[whole], this.#list[whole], rest);
  }

  /** Where a pass writes: pages of its own, of which the last holds numbers everywhere. @throws UsageError without room */
  write(start: number, rows: number): SlotRun[] {
    const end = start + rows;
    this.reserve(end);
    this.#own(start, end);
    // Once, as some layers of a pass may be run later than others; pages before the last are filled by the pass.
    const last = Math.floor((end - 1) / slotsOfBlock);
    if (last >= this.#begun && end % slotsOfBlock !== 0) this.pages.clear(this.#list[last]);
    this.#begun = Math.max(this.#begun, last + 1);
    const runs: { rows: number; slot: number }[] = [];
    for (let at = start; at < end; ) {
      const within = at % slotsOfBlock;
      const slot = this.#list[Math.floor(at / slotsOfBlock)] * slotsOfBlock + within;
      const count = Math.min(end - at, slotsOfBlock - within);
      const before = runs.at(-1);
      if (before !== undefined && before.slot + before.rows === slot) before.rows += count;
      else runs.push({ rows: count, slot });
      at += count;
    }
    return runs;
  }

  /** Copies pages that others read before they are written, from one position to another: after tokens were taken back. */
  #own(start: number, end: number): void {
    const { pages } = this;
    for (let p = Math.floor(start / slotsOfBlock); p * slotsOfBlock < end; p++) {
      const page = this.#list[p];
      if (!pages.isShared(page)) continue;
      const own = pages.take();
      pages.clear(own);
      pages.copy(page, own, Math.max(0, start - p * slotsOfBlock));
      this.#list[p] = own;
      pages.release(page);
    }
  }

  [Symbol.dispose](): void {
    this.trim(0);
  }
}
