import { f16FromF32, f32FromF16 } from "../../tensor/index.js";
import { codedWords, groupShifts, type KvCodes, ringSlots, rowWords } from "../kvCodes.js";

/** The keys, or the values, of one layer. */
export interface KvRows {
  /** f32 [width] */
  get(slot: number, head: number): Float32Array;
  /** Fills a slot that counts as the newest. */
  put(slot: number, head: number, row: Float32Array): void;
  /** Makes codes of slots [from, to), whole groups, where they wait for that. */
  code(from: number, to: number): void;
  /** What a slot holds, as it is held: a copy. */
  take(slot: number, head: number): KvEntry;
  restore(slot: number, head: number, entry: KvEntry): void;
}

export type KvEntry = Float32Array | { codes: Uint32Array; scales: Uint32Array };

/** f32 [slots, heads, width]. */
export class PlainRows implements KvRows {
  readonly #data: Float32Array;

  constructor(
    slots: number,
    readonly heads: number,
    readonly width: number,
  ) {
    this.#data = new Float32Array(slots * heads * width);
  }

  get(slot: number, head: number): Float32Array {
    const at = (slot * this.heads + head) * this.width;
    return this.#data.subarray(at, at + this.width);
  }

  put(slot: number, head: number, row: Float32Array): void {
    this.get(slot, head).set(row);
  }

  code(): void {}

  take(slot: number, head: number): Float32Array {
    return this.get(slot, head).slice();
  }

  restore(slot: number, head: number, entry: KvEntry): void {
    this.put(slot, head, entry as Float32Array);
  }
}

/** See `KvCodes`. */
export class CodedRows implements KvRows {
  readonly #codes: Uint32Array;
  readonly #scales: Uint32Array;
  readonly #ring: Float32Array;
  readonly #ringSlots: number;
  /** Words of a head, and of a row. */
  readonly #words: ReturnType<typeof codedWords>;
  readonly #rowWords: number;
  readonly #shifts: ReturnType<typeof groupShifts>;
  #coded = 0;

  constructor(
    readonly codes: KvCodes,
    readonly part: "key" | "value",
    readonly slots: number,
    readonly heads: number,
    readonly width: number,
  ) {
    this.#words = codedWords(codes, part, width, slots);
    this.#codes = new Uint32Array(heads * this.#words.codes);
    this.#scales = new Uint32Array(heads * this.#words.scales);
    this.#ring = new Float32Array(heads * this.#words.ring);
    this.#ringSlots = ringSlots(codes);
    this.#rowWords = rowWords(codes.bits, width);
    this.#shifts = groupShifts(codes, part);
    if (codes.kivi === undefined) this.#coded = slots;
  }

  get(slot: number, head: number): Float32Array {
    if (slot >= this.#coded) return this.#waiting(slot, head);
    const { bits } = this.codes;
    const codes = this.#codesOf(slot, head);
    return Float32Array.from({ length: this.width }, (_, c) => {
      const scale = this.#scales[this.#scaleAt(slot, head, c)];
      const code = (codes[(c * bits) >> 5] >>> ((c * bits) & 31)) & (2 ** bits - 1);
      return f32FromF16(scale & 0xffff) * code + f32FromF16(scale >>> 16);
    });
  }

  put(slot: number, head: number, row: Float32Array): void {
    if (this.#ringSlots === 0) this.#codeGroup(slot, slot + 1, head, () => row);
    else this.#waiting(slot, head).set(row);
  }

  code(from: number, to: number): void {
    const step = 1 << this.#shifts.tokenShift;
    for (let slot = from; slot < to; slot += step) {
      for (let head = 0; head < this.heads; head++) {
        this.#codeGroup(slot, slot + step, head, (member) => this.#waiting(member, head));
      }
    }
    this.#coded = to;
  }

  take(slot: number, head: number): KvEntry {
    const at = this.#scaleAt(slot, head, 0);
    return { codes: this.#codesOf(slot, head).slice(), scales: this.#scales.slice(at, at + this.#words.scalesPerRow) };
  }

  restore(slot: number, head: number, entry: KvEntry): void {
    const { codes, scales } = entry as { codes: Uint32Array; scales: Uint32Array };
    this.#codesOf(slot, head).set(codes);
    this.#scales.set(scales, this.#scaleAt(slot, head, 0));
  }

  /** Slots of one group of tokens. */
  #codeGroup(from: number, to: number, head: number, rowOf: (slot: number) => Float32Array): void {
    const { bits } = this.codes;
    const most = 2 ** bits - 1;
    const ranges = new Map<number, { least: number; most: number }>();
    for (let slot = from; slot < to; slot++) {
      for (const [c, x] of rowOf(slot).entries()) {
        const at = this.#scaleAt(slot, head, c);
        const { least, most } = ranges.get(at) ?? { least: x, most: x };
        ranges.set(at, { least: Math.min(least, x), most: Math.max(most, x) });
      }
    }
    for (const [at, { least, most: largest }] of ranges) {
      const z = halfBits(least);
      const s = halfBits(quotient(largest - f32FromF16(z), most));
      this.#scales[at] = s | (z << 16);
    }
    for (let slot = from; slot < to; slot++) {
      const codes = this.#codesOf(slot, head).fill(0);
      for (const [c, x] of rowOf(slot).entries()) {
        const scale = this.#scales[this.#scaleAt(slot, head, c)];
        const s = f32FromF16(scale & 0xffff);
        const steps = s === 0 ? 0 : quotient(x - f32FromF16(scale >>> 16), s);
        codes[(c * bits) >> 5] |= Math.min(most, Math.max(0, roundToEven(steps))) << ((c * bits) & 31);
      }
    }
  }

  #scaleAt(slot: number, head: number, channel: number): number {
    const { tokenShift, channelShift } = this.#shifts;
    const { scales, scalesPerRow } = this.#words;
    return head * scales + (slot >> tokenShift) * scalesPerRow + (channel >> channelShift);
  }

  #codesOf(slot: number, head: number): Uint32Array {
    const at = head * this.#words.codes + slot * this.#rowWords;
    return this.#codes.subarray(at, at + this.#rowWords);
  }

  #waiting(slot: number, head: number): Float32Array {
    const at = head * this.#words.ring + (slot % this.#ringSlots) * this.width;
    return this.#ring.subarray(at, at + this.width);
  }
}

/** In f32, so that codes are those of other backends. */
const quotient = (difference: number, by: number): number => Math.fround(Math.fround(difference) / by);

const largestHalf = 65504;

/** f16 bits of a number, the largest finite one for what is beyond; NaN of what is not finite. */
const halfBits = (x: number): number =>
  Number.isFinite(x) ? f16FromF32(Math.min(largestHalf, Math.max(-largestHalf, x))) : 0x7e00;

function roundToEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}
