import { type ChosenSlots, rowsOfGroup, slotsOfBlock } from "../../kernels/index.js";
import { type Look, shapeOf } from "./dynamic.js";

/** Key blocks that each query head sees, by 16 rows: what kernels read at once, so nothing that is read is thrown away. */
export class BlockChoice implements ChosenSlots {
  readonly alike = true;
  readonly blocks: number;
  readonly #words: Uint32Array[];

  constructor(readonly look: Look) {
    const { slots } = shapeOf(look);
    this.blocks = Math.ceil(slots / slotsOfBlock);
    const groups = Math.ceil(look.q.rows / rowsOfGroup);
    this.#words = Array.from({ length: groups * look.queryHeads }, () => new Uint32Array(this.blocks));
  }

  /** Lets a head see key blocks [from, to), from the rows of a group; cut to those that there are. */
  add(group: number, head: number, from: number, to: number): void {
    this.#of(group, head).fill(0xffffffff, Math.max(0, from), Math.max(0, Math.min(this.blocks, to)));
  }

  /** The same of blocks of `size` slots, from rows [row, row + size); both are multiples of those of the kernels. */
  addBlocks(row: number, size: number, head: number, seen: readonly number[]): void {
    const width = size / slotsOfBlock;
    const end = Math.min(this.look.q.rows, row + size);
    for (let group = row / rowsOfGroup; group * rowsOfGroup < end; group++) {
      for (const b of seen) this.add(group, head, b * width, (b + 1) * width);
    }
  }

  words(row: number, head: number): Uint32Array {
    return this.#of(Math.floor(row / rowsOfGroup), head);
  }

  #of(group: number, head: number): Uint32Array {
    return this.#words[group * this.look.queryHeads + head];
  }
}

/** First and last row of every 16 of a pass. */
export function rowGroups({ q: { rows } }: Look): { group: number; first: number; last: number }[] {
  return Array.from({ length: Math.ceil(rows / rowsOfGroup) }, (_, group) => ({
    group,
    first: group * rowsOfGroup,
    last: Math.min(rows, (group + 1) * rowsOfGroup) - 1,
  }));
}

/** Makes shares of the first `count` scores of a row, in place: their softmax. */
export function softmax(scores: Float32Array, count: number): void {
  let most = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i++) most = Math.max(most, scores[i]);
  let total = 0;
  for (let i = 0; i < count; i++) {
    scores[i] = Math.exp(scores[i] - most);
    total += scores[i];
  }
  for (let i = 0; i < count; i++) scores[i] /= total;
  scores.fill(0, count);
}
