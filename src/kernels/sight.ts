import type { KvLayer } from "./kv.js";

/**
 * Which slots the rows of a pass see. Row r of the pass stands at slot `start + r` of `AttentionOptions`.
 *
 * `causal`: slots up to its own, of those the last `window` if there is one. `bidirectional`: all up to that of the last
 * row. `KeyBlocks`: whatever the blocks say.
 */
export type SightSpec =
  | { readonly kind: "causal"; readonly window?: number }
  | { readonly kind: "bidirectional" }
  | KeyBlocks;

/** A sight that a backend has loaded, for any number of layers and passes. */
export interface Sight extends Disposable {
  readonly spec: SightSpec;
}

/** Rows of a pass, from its first on, that share a list of key blocks. */
export const rowsOfGroup = 16;
/** Slots of a key block. */
export const slotsOfBlock = 32;
/** In `KeyBlocks.masks`: every row sees all of the block. */
export const fullBlock = 0xffffffff;

/**
 * The block mask of one pass: for every 16 rows the key blocks that any of them sees, and of those that not all see
 * wholly, the mask. Blocks that are not listed are neither read nor computed. Query heads may see differently: each has a
 * table, and a mask has the bits of every table.
 */
export interface KeyBlocks {
  readonly kind: "blocks";
  /** Rows of the pass. */
  readonly rows: number;
  /** Slots [0, slots) are in use. */
  readonly slots: number;
  readonly tables: number;
  /** u32 [queryHeads] */
  readonly tableOfHead: Uint32Array;
  /** u32 [⌈rows / 16⌉ + 1]: where the list of every 16 rows begins in `blocks` and `masks`. */
  readonly first: Uint32Array;
  /** Key blocks, once each within a list, and read in its order; `keyBlocks` gives them ascending. */
  readonly blocks: Uint32Array;
  /** Of every block its mask, or `fullBlock`. */
  readonly masks: Uint32Array;
  /** u32 [masks, tables, 16], each mask once: bit s of a word is slot s of the block. */
  readonly bits: Uint32Array;
}

/** Slots [from, to). */
export type SlotRange = readonly [from: number, to: number];

/**
 * Makes the block mask of what every row sees.
 * @param see of a row and a table the slots it sees: ranges in any order, which may overlap and reach over the ends
 */
export function keyBlocks(
  pass: { rows: number; slots: number; tableOfHead: readonly number[] },
  see: (row: number, table: number) => Iterable<SlotRange>,
): KeyBlocks {
  const { rows, slots, tableOfHead } = pass;
  const tables = Math.max(...tableOfHead) + 1;
  const blockCount = Math.ceil(slots / slotsOfBlock);
  const first = [0];
  const blocks: number[] = [];
  const masks: number[] = [];
  const pool = new MaskPool(tables * rowsOfGroup);
  for (let group = 0; group < rows; group += rowsOfGroup) {
    const members = Math.min(rowsOfGroup, rows - group);
    const seen = new Map<number, Uint32Array>();
    for (let table = 0; table < tables; table++) {
      for (let r = 0; r < members; r++) {
        for (const [from, to] of see(group + r, table)) {
          const [begin, end] = [Math.max(0, from), Math.min(slots, to)];
          for (let block = Math.floor(begin / slotsOfBlock); block * slotsOfBlock < end; block++) {
            const mask = seen.get(block) ?? new Uint32Array(tables * rowsOfGroup);
            seen.set(block, mask);
            mask[table * rowsOfGroup + r] |= bitsBetween(begin - block * slotsOfBlock, end - block * slotsOfBlock);
          }
        }
      }
    }
    for (const block of [...seen.keys()].sort((a, b) => a - b)) {
      const inUse = block === blockCount - 1 ? bitsBetween(0, slots - block * slotsOfBlock) : fullBlock;
      const mask = seen.get(block)!;
      const full = mask.every((word, i) => i % rowsOfGroup >= members || word >>> 0 === inUse);
      blocks.push(block);
      masks.push(full ? fullBlock : pool.index(mask));
    }
    first.push(blocks.length);
  }
  return {
    kind: "blocks",
    rows,
    slots,
    tables,
    tableOfHead: Uint32Array.from(tableOfHead),
    first: Uint32Array.from(first),
    blocks: Uint32Array.from(blocks),
    masks: Uint32Array.from(masks),
    bits: pool.bits(),
  };
}

/** Which slots the rows of a pass see, where that was decided by query head and in blocks. */
export interface ChosenSlots {
  /** Whether all of 16 rows see the same, but for slots behind their own; then only the first of them is asked for. */
  readonly alike: boolean;
  /** u32 [⌈slots / 32⌉]: bit s of word b is slot 32 · b + s. Slots behind the row's own need not be left out. */
  words(row: number, head: number): Uint32Array;
}

/** Makes the block mask of what every query head of a pass chose: a table for every head. */
export function chosenBlocks(
  { rows, slots, heads }: { rows: number; slots: number; heads: number },
  choice: ChosenSlots,
): KeyBlocks {
  const start = slots - rows;
  const { alike } = choice;
  const first = [0];
  const blocks: number[] = [];
  const masks: number[] = [];
  const pool = new MaskPool(heads * rowsOfGroup);
  /** Masks of which all rows see alike, by the words of their heads. */
  const known = new Map<string, number>();
  for (let group = 0; group < rows; group += rowsOfGroup) {
    const members = Math.min(rowsOfGroup, rows - group);
    const asked = alike ? 1 : members;
    const chosen = Array.from({ length: heads * asked }, (_, i) =>
      choice.words(group + (i % asked), Math.floor(i / asked)),
    );
    for (let block = 0; block * slotsOfBlock < start + group + members; block++) {
      if (chosen.every((of) => of[block] === 0)) continue;
      // Only here rows see different slots of what is chosen.
      const within = (block + 1) * slotsOfBlock <= start + group + 1;
      const key = alike && within ? chosen.map((of) => of[block]).join() : undefined;
      let index = key === undefined ? undefined : known.get(key);
      if (index === undefined) {
        const mask = new Uint32Array(heads * rowsOfGroup);
        for (let head = 0; head < heads; head++) {
          for (let r = 0; r < members; r++) {
            const causal = bitsBetween(0, start + group + r + 1 - block * slotsOfBlock);
            mask[head * rowsOfGroup + r] = chosen[head * asked + (r % asked)][block] & causal;
          }
        }
        const full = within && mask.every((word, i) => i % rowsOfGroup >= members || word === fullBlock);
        // Masks with a key are told apart by it.
        index = full ? fullBlock : key === undefined ? pool.index(mask) : pool.add(mask);
        if (key !== undefined && members === rowsOfGroup) known.set(key, index);
      }
      blocks.push(block);
      masks.push(index);
    }
    first.push(blocks.length);
  }
  return {
    kind: "blocks",
    rows,
    slots,
    tables: heads,
    tableOfHead: Uint32Array.from({ length: heads }, (_, head) => head),
    first: Uint32Array.from(first),
    blocks: Uint32Array.from(blocks),
    masks: Uint32Array.from(masks),
    bits: pool.bits(),
  };
}

/** Sets slots [from, to) in words of a bit a slot. */
export function setSlots(words: Uint32Array, from: number, to: number): void {
  for (let block = Math.floor(from / slotsOfBlock); block * slotsOfBlock < to; block++) {
    words[block] |= bitsBetween(from - block * slotsOfBlock, to - block * slotsOfBlock);
  }
}

/** Bits [from, to) of a word, cut to it. */
function bitsBetween(from: number, to: number): number {
  const [low, high] = [Math.max(0, from), Math.min(slotsOfBlock, to)];
  if (high <= low) return 0;
  return ((0xffffffff >>> (32 - (high - low))) << low) >>> 0;
}

/** Each mask once: most blocks of a pattern look like others. */
class MaskPool {
  readonly #indices = new Map<string, number>();
  readonly #masks: Uint32Array[] = [];

  constructor(readonly words: number) {}

  index(mask: Uint32Array): number {
    const key = mask.join();
    let index = this.#indices.get(key);
    if (index === undefined) {
      index = this.add(mask);
      this.#indices.set(key, index);
    }
    return index;
  }

  add(mask: Uint32Array): number {
    return this.#masks.push(mask) - 1;
  }

  bits(): Uint32Array {
    const bits = new Uint32Array(this.#masks.length * this.words);
    for (const [i, mask] of this.#masks.entries()) bits.set(mask, i * this.words);
    return bits;
  }
}

/** The word of a mask that says which slots of a block a row sees. */
export function wordOf(spec: KeyBlocks, mask: number, row: number, head: number): number {
  if (mask === fullBlock) return fullBlock;
  return spec.bits[(mask * spec.tables + spec.tableOfHead[head]) * rowsOfGroup + (row % rowsOfGroup)];
}

/**
 * Bytes of keys and values that a pass has to read when 16 rows share what is read for them: of a block mask its listed
 * blocks, else what lies between the first and the last slot that one of the rows sees. With one row this is what it reads.
 * @param start slot of the first row
 * @param bytesOf of slots [from, to) of one key head
 */
export function kvBytesRead(
  spec: SightSpec,
  { rows, start, queryHeads }: { rows: number; start: number; queryHeads: number },
  { heads }: KvLayer,
  bytesOf: (from: number, to: number) => number,
): number {
  let bytes = 0;
  if (spec.kind === "blocks") {
    const perKey = queryHeads / heads;
    for (let group = 0; group + 1 < spec.first.length; group++) {
      for (let i = spec.first[group]; i < spec.first[group + 1]; i++) {
        const from = spec.blocks[i] * slotsOfBlock;
        const seeing = spec.tables === 1 ? heads : headsThatSee(spec, group, spec.masks[i], perKey);
        bytes += seeing * bytesOf(from, Math.min(from + slotsOfBlock, spec.slots));
      }
    }
  } else {
    for (let row = 0; row < rows; row += rowsOfGroup) {
      const last = start + (spec.kind === "causal" ? Math.min(row + rowsOfGroup, rows) : rows);
      const from =
        spec.kind === "causal" ? Math.max(0, start + row + 1 - (spec.window ?? Number.POSITIVE_INFINITY)) : 0;
      bytes += heads * bytesOf(from, last);
    }
  }
  return bytes;
}

/** Key heads of which some query head sees something of a block. */
function headsThatSee(spec: KeyBlocks, group: number, mask: number, perKey: number): number {
  let heads = 0;
  for (let first = 0; first < spec.tableOfHead.length; first += perKey) {
    let any = false;
    for (let h = first; h < first + perKey; h++) {
      for (let r = 0; r < rowsOfGroup; r++) any ||= wordOf(spec, mask, group * rowsOfGroup + r, h) !== 0;
    }
    if (any) heads++;
  }
  return heads;
}

/** A block mask as kernels read it: the table of every head, where lists begin, blocks with their masks, bits of masks. */
export function blockMaskWords({ tableOfHead, first, blocks, masks, bits }: KeyBlocks): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(tableOfHead.length + first.length + 2 * blocks.length + bits.length);
  words.set(tableOfHead);
  words.set(first, tableOfHead.length);
  const pairs = tableOfHead.length + first.length;
  for (let i = 0; i < blocks.length; i++) {
    words[pairs + 2 * i] = blocks[i];
    words[pairs + 2 * i + 1] = masks[i];
  }
  words.set(bits, pairs + 2 * blocks.length);
  return words;
}

/** Where the lists, the blocks and the bits begin in `blockMaskWords`. */
export function blockMaskOffsets({ tableOfHead, first, blocks }: KeyBlocks) {
  const blocksAt = tableOfHead.length + first.length;
  return { listsAt: tableOfHead.length, blocksAt, bitsAt: blocksAt + 2 * blocks.length };
}
