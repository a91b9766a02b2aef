import type { AttendStep } from "../arch/index.js";
import type { SlotRange } from "../kernels/index.js";
import { fittedRoom } from "./room.js";
import type { HeldContext } from "./types.js";

/** Rows of a pass in one layer: where the first of them stands, and what interacts. */
interface PassRows {
  readonly position: number;
  readonly slot: number;
  readonly rows: number;
  /** f32 [rows, 2 · rank]: the interaction query and key of each. */
  readonly interactions: Float32Array;
  readonly bias: number;
}

const nobody = Number.POSITIVE_INFINITY;

/**
 * What one layer remembers of the tokens in its slots to tell which are no longer needed (Anagnostidis et al. 2023, arXiv
 * 2305.15805). A position that drops another one is remembered, so that going back before it brings the other one back, as long
 * as nothing was moved into its slot.
 */
export class LayerContext {
  /** f32 [slots, rank] */
  #keys = new Float32Array(0);
  readonly #positions: number[] = [];
  /** The position that dropped the token of each slot. */
  readonly #droppedBy: number[] = [];

  constructor(readonly rank: number) {}

  get byteLength(): number {
    return this.#keys.byteLength + 16 * this.#positions.length;
  }

  /** Slots of the tokens that were dropped. */
  dropped(): number[] {
    return [...this.#droppedBy.keys()].filter((slot) => this.#droppedBy[slot] !== nobody);
  }

  /**
   * Lets the rows of a pass come, each of which drops what it finds no longer needed. What was in their slots, and what later
   * positions had dropped, is as if it had never been.
   */
  run({ position, slot, rows, interactions, bias }: PassRows): void {
    const { rank } = this;
    this.#truncate(slot, position);
    this.#reserve(slot + rows);
    const scale = 1 / Math.sqrt(rank);
    for (let row = 0; row < rows; row++) {
      const query = interactions.subarray(2 * row * rank, (2 * row + 1) * rank);
      for (let held = 0; held < slot + row; held++) {
        if (this.#droppedBy[held] !== nobody) continue;
        let product = 0;
        for (let c = 0; c < rank; c++) product += query[c] * this.#keys[held * rank + c];
        if (product * scale + bias <= 0) this.#droppedBy[held] = position + row;
      }
      this.#keys.set(interactions.subarray((2 * row + 1) * rank, (2 * row + 2) * rank), (slot + row) * rank);
      this.#positions.push(position + row);
      this.#droppedBy.push(nobody);
    }
  }

  /** Whether the newest `rows` see all that lies before them, in the order of their positions. */
  seesAll(window: number | undefined): boolean {
    const whole = this.#droppedBy.every((by) => by === nobody);
    return whole && (window === undefined || this.#positions.every((position, slot) => position === slot));
  }

  /** Slots that the token at slot `own`, one of the newest pass, sees. */
  *seen(own: number, window = Number.POSITIVE_INFINITY): Generator<SlotRange> {
    const at = this.#positions[own];
    const sees = (slot: number) => this.#droppedBy[slot] > at && this.#positions[slot] > at - window;
    for (let from = 0; from <= own; from++) {
      if (!sees(from)) continue;
      let to = from + 1;
      while (to <= own && sees(to)) to++;
      yield [from, to];
      from = to;
    }
  }

  /** Tokens go from slots to others; see `KvMoves`. */
  move(from: ArrayLike<number>, to: ArrayLike<number>): void {
    const taken = Array.from(from, (slot) => ({
      key: this.#keys.slice(slot * this.rank, (slot + 1) * this.rank),
      position: this.#positions[slot],
      droppedBy: this.#droppedBy[slot],
    }));
    for (const [m, { key, position, droppedBy }] of taken.entries()) {
      this.#keys.set(key, to[m] * this.rank);
      this.#positions[to[m]] = position;
      this.#droppedBy[to[m]] = droppedBy;
    }
  }

  /** Leaves the first `count` slots, of which nothing from `position` on has dropped any. */
  #truncate(count: number, position: number): void {
    this.#positions.length = Math.min(this.#positions.length, count);
    this.#droppedBy.length = this.#positions.length;
    for (const [slot, by] of this.#droppedBy.entries()) if (by >= position) this.#droppedBy[slot] = nobody;
  }

  #reserve(slots: number): void {
    const [room, wanted] = [this.#keys.length / this.rank, slots];
    // A quarter more than is needed; a half less is worth being made anew.
    if (room >= wanted && room <= 4 * wanted + 64) return;
    const keys = new Float32Array(this.rank * Math.ceil(wanted * 1.25));
    keys.set(this.#keys.subarray(0, Math.min(this.#keys.length, this.#positions.length * this.rank)));
    this.#keys = keys;
  }
}

/** What all layers of one cache remember; layers that prune nothing have nothing. */
export class CacheContext implements HeldContext {
  readonly #layers: readonly (LayerContext | undefined)[];

  /** @param steps that attend, of every layer */
  constructor(steps: readonly (AttendStep | undefined)[]) {
    this.#layers = steps.map((step) => step?.pruning && new LayerContext(step.pruning.query.rows));
  }

  get byteLength(): number {
    return this.#layers.reduce((sum, layer) => sum + (layer?.byteLength ?? 0), 0);
  }

  readonly fit = fittedRoom;

  layer(layer: number): LayerContext | undefined {
    return this.#layers[layer];
  }

  dropped(layer: number): number[] {
    return this.#layers[layer]?.dropped() ?? [];
  }
}
