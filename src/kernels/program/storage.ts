import { UsageError } from "../../core/index.js";
import type { PackedFormatId } from "../../pack/index.js";
import type { Activation, Matrix, MatrixPart, RopeLayout, RopeTable, Vector } from "../backend.js";
import { CodedSlots } from "../codedSlots.js";
import { type KvCache, type KvCacheSpec, keptValue, kvCacheBytes, slotsOf } from "../kv.js";
import { codedWords } from "../kvCodes.js";
import { blockMaskOffsets, blockMaskWords, type Sight, type SightSpec } from "../sight.js";
import { View } from "../views.js";
import type { Arena } from "./arena.js";

/**
 * f32 numbers that may be wanted in several memories. They lie where they were last written (`home`) and are copied when
 * an operation in another memory reads them.
 */
export class Block {
  readonly #places = new Map<Arena, number>();
  #home: Arena;

  constructor(
    readonly count: number,
    home: Arena,
  ) {
    this.#home = home;
    this.#place(home);
  }

  get home(): Arena {
    return this.#home;
  }

  /** Byte offset in `arena` for reading. */
  readIn(arena: Arena): number {
    this.#alive();
    const offset = this.#place(arena);
    if (arena !== this.#home) {
      this.#home.run();
      arena.floats(offset, this.count).set(this.#home.floats(this.#place(this.#home), this.count));
      this.#home = arena;
    }
    return offset;
  }

  /** Byte offset in `arena` for writing part of it or all (`whole`): what is not written must be there too. */
  writeIn(arena: Arena, whole: boolean): number {
    this.#alive();
    if (!whole) return this.readIn(arena);
    this.#home = arena;
    return this.#place(arena);
  }

  /** Frees the storage; operations on it that are still recorded run first. */
  release(): void {
    this.#alive();
    for (const [arena, offset] of this.#places) {
      arena.settle();
      arena.release(offset);
    }
    this.#places.clear();
  }

  #place(arena: Arena): number {
    let offset = this.#places.get(arena);
    if (offset === undefined) {
      offset = arena.allocate(this.count * 4);
      this.#places.set(arena, offset);
    }
    return offset;
  }

  #alive(): void {
    if (this.#places.size === 0) throw new UsageError("an activation that was released");
  }
}

export class ProgramActivation extends View<Block> {
  readIn(arena: Arena): number {
    return this.block.readIn(arena) + this.offset * 4;
  }

  writeIn(arena: Arena): number {
    return this.block.writeIn(arena, this.rows * this.cols === this.block.count) + this.offset * 4;
  }

  /** Copies f32 [rows * cols] in, once what is recorded has run. */
  write(values: Float32Array): void {
    const arena = this.block.home;
    arena.run();
    const at = this.writeIn(arena);
    for (let r = 0; r < this.rows; r++) {
      const row = values.subarray(r * this.cols, (r + 1) * this.cols);
      arena.floats(at + r * this.stride * 4, this.cols).set(row);
    }
  }

  /** f32 [rows * cols], a copy, once what is recorded has run. */
  read(): Float32Array {
    const arena = this.block.home;
    arena.run();
    const at = this.readIn(arena);
    const values = new Float32Array(this.rows * this.cols);
    for (let r = 0; r < this.rows; r++) {
      values.set(arena.floats(at + r * this.stride * 4, this.cols), r * this.cols);
    }
    return values;
  }
}

export function own(activation: Activation): ProgramActivation {
  if (activation instanceof ProgramActivation) return activation;
  throw new UsageError("an activation of another backend");
}

/** Constant f32 numbers, copied into each memory that reads them. */
export class Constant {
  readonly #places = new Map<Arena, number>();
  constructor(readonly values: Float32Array) {}

  readIn(arena: Arena): number {
    let offset = this.#places.get(arena);
    if (offset === undefined) {
      offset = arena.allocate(this.values.byteLength);
      arena.floats(offset, this.values.length).set(this.values);
      this.#places.set(arena, offset);
    }
    return offset;
  }

  /** Frees every copy, once what is recorded has run. */
  release(): void {
    for (const [arena, offset] of this.#places) {
      arena.settle();
      arena.release(offset);
    }
    this.#places.clear();
  }
}

export class ProgramVector implements Vector {
  readonly constant: Constant;
  constructor(values: Float32Array) {
    this.constant = new Constant(values);
  }
  get length(): number {
    return this.constant.values.length;
  }
}

export class ProgramRopeTable implements RopeTable {
  readonly headDim: number;
  readonly first: number;
  readonly width: number;
  readonly pairs: RopeLayout["pairs"];
  readonly cos: Constant;
  readonly sin: Constant;
  readonly positions: number;
  constructor(cos: Float32Array, sin: Float32Array, layout: RopeLayout) {
    ({ headDim: this.headDim, first: this.first, width: this.width, pairs: this.pairs } = layout);
    this.cos = new Constant(cos);
    this.sin = new Constant(sin);
    this.positions = cos.length / (layout.width / 2);
  }
}

/** A part of a stack: its rows begin at a multiple of 32 of the packed rows. */
export interface ProgramMatrixPart extends MatrixPart {
  readonly packedStart: number;
  /** In formats that leave zeros out, where the part's bytes lie and how many they are; there each part is by itself. */
  readonly offset?: number;
  readonly byteLength?: number;
}

export interface ProgramMatrix extends Matrix {
  readonly format: PackedFormatId;
  readonly parts: readonly ProgramMatrixPart[];
  readonly arena: Arena;
  /** Byte offset of the packed bytes, or of those of the first part. */
  readonly offset: number;
  /** Rows of the packed stack, padding included. */
  readonly packedRows: number;
}

/** A sight; a block mask is copied into each memory that reads it. */
export class ProgramSight implements Sight {
  readonly #places = new Map<Arena, number>();

  constructor(readonly spec: SightSpec) {}

  /** The operands of a record that say what is seen by a pass of `rows` rows from slot `start` on. */
  operands(arena: Arena, start: number, rows: number) {
    const { spec } = this;
    const inOrder = { start, used: start + rows, window: 0, tableOfHead: 0, lists: 0, blocks: 0, bits: 0, tables: 0 };
    if (spec.kind === "bidirectional") return { ...inOrder, causal: false };
    if (spec.kind === "causal") return { ...inOrder, causal: true, window: spec.window ?? 0 };
    let at = this.#places.get(arena);
    if (at === undefined) {
      const words = blockMaskWords(spec);
      at = arena.allocate(words.byteLength);
      arena.bytes(at, words.byteLength).set(new Uint8Array(words.buffer));
      this.#places.set(arena, at);
    }
    const { listsAt, blocksAt, bitsAt } = blockMaskOffsets(spec);
    const parts = { tableOfHead: at, lists: at + 4 * listsAt, blocks: at + 4 * blocksAt, bits: at + 4 * bitsAt };
    return { ...inOrder, ...parts, causal: true, used: spec.slots, tables: spec.tables };
  }

  [Symbol.dispose](): void {
    for (const [arena, offset] of this.#places) {
      arena.run();
      arena.release(offset);
    }
    this.#places.clear();
  }
}

/** Where the parts of a layer lie that are kept for all its heads, each [heads][…]; 0 for one that there is not. */
export interface KvPlace {
  readonly arena: Arena;
  /** f32 [slots][width], or codes. */
  readonly keys: number;
  readonly values: number;
  /** f32 [slots] */
  readonly mass: number;
  /** Of codes; see `codedWords`. */
  readonly keyScales: number;
  readonly valueScales: number;
  readonly keyRing: number;
  readonly valueRing: number;
}

/** Keys and values, placed in the memory where the layer first writes. */
export class ProgramKvCache implements KvCache {
  readonly byteLength: number;
  readonly coded: CodedSlots;
  readonly #layers: (KvPlace | undefined)[];
  #disposed = false;

  constructor(
    readonly spec: KvCacheSpec,
    readonly onDispose: (cache: ProgramKvCache) => void,
  ) {
    this.byteLength = kvCacheBytes(spec);
    this.coded = new CodedSlots(spec);
    this.#layers = new Array(spec.layers.length).fill(undefined);
  }

  /** Where a layer lies, if it was written. */
  placed(index: number): KvPlace | undefined {
    if (this.#disposed) throw new UsageError("a cache that was disposed");
    return this.#layers[index];
  }

  /** Where a layer lies; without a place yet, in `home`. */
  layer(index: number, home: Arena): KvPlace {
    const placed = this.placed(index);
    if (placed !== undefined) return placed;
    const { mass, codes } = this.spec;
    const slots = slotsOf(this.spec, index);
    const kept = this.spec.layers[index];
    const [key, value] = [kept.key, keptValue(kept)];
    const room = (words: number) => (words === 0 ? 0 : home.allocate(4 * words * kept.heads));
    const plain = (width: number) => ({ codes: slots * width, scales: 0, ring: 0 });
    const ofKeys = codes === undefined ? plain(key) : codedWords(codes, "key", key, slots);
    const ofValues = codes === undefined ? plain(value) : codedWords(codes, "value", value, slots);
    const layer: KvPlace = {
      arena: home,
      keys: room(ofKeys.codes),
      values: room(ofValues.codes),
      mass: room(mass === undefined ? 0 : slots),
      keyScales: room(ofKeys.scales),
      valueScales: room(ofValues.scales),
      keyRing: room(ofKeys.ring),
      valueRing: room(ofValues.ring),
    };
    this.#layers[index] = layer;
    return layer;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const layer of this.#layers) {
      if (layer === undefined) continue;
      const { arena, ...parts } = layer;
      arena.settle();
      for (const offset of Object.values(parts)) if (offset !== 0) arena.release(offset);
    }
    this.onDispose(this);
  }
}
