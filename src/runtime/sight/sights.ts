import {
  type Backend,
  keyBlocks,
  type Sight,
  type SightSpec,
  type SlotRange,
  slotsOfBlock,
} from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import type { Attention } from "./index.js";

/** One pass: its tokens' positions, and which positions lie in the slots before them. */
export interface Pass {
  /** Position of the first token. */
  readonly position: number;
  readonly rows: number;
  /**
   * Positions that each key head of each layer holds, by slot, where they are not simply all before the pass; `held(layer,
   * head)` for one key head. Heads that hold alike may be given the same array.
   */
  readonly held?: (layer: number, head: number) => Int32Array;
  /** Where positions lie, in a cache that is given out in pages of a key block each. Not with `held`. */
  readonly pages?: { readonly blocks: readonly number[]; readonly slots: number };
}

/**
 * What the layers of a model see in a pass: the pattern, within the windows that the model was made for, in slots. Made anew
 * for every pass and loaded once for all layers that see alike.
 */
export class Sights implements Disposable {
  #loaded: { key: string; sights: readonly (Sight | undefined)[] } | undefined;

  constructor(
    readonly model: Model,
    readonly attention: Attention | undefined,
  ) {}

  /** One for each layer, until the next call; undefined where the model's own will do. */
  of(pass: Pass): readonly (Sight | undefined)[] | undefined {
    const { backend, config } = this.model;
    const windows = config.slidingWindows;
    const own = this.attention === undefined && pass.pages === undefined;
    // In slots of their own order the model's windows are not where it looks for them.
    if (own && (pass.held === undefined || windows.every((window) => window === undefined))) return undefined;
    // Without slots of its own, a pass at the same place sees the same.
    const inOrder = pass.held === undefined && pass.pages === undefined;
    const key = inOrder ? `${pass.position} ${pass.rows}` : "";
    if (key !== "" && this.#loaded?.key === key) return this.#loaded.sights;
    this[Symbol.dispose]();
    const made = new Map<string, Sight | undefined>();
    const sights = windows.map((window, layer) => {
      const turn = layer % (this.attention?.periods.layers ?? 1);
      const alike = `${turn} ${window} ${config.blocks[layer].queryHeads} ${pass.held === undefined ? "" : layer}`;
      if (!made.has(alike)) made.set(alike, this.#load(backend, pass, layer, window));
      return made.get(alike);
    });
    this.#loaded = { key, sights };
    return sights;
  }

  #load(backend: Backend, pass: Pass, layer: number, window: number | undefined): Sight | undefined {
    const spec = this.#spec(pass, layer, window);
    return spec.kind === "causal" && spec.window === undefined ? undefined : backend.loadSight(spec);
  }

  #spec({ position, rows, held, pages }: Pass, layer: number, window: number | undefined): SightSpec {
    const { queryHeads, kvHeads } = this.model.config.blocks[layer];
    const { periods = { heads: 1 }, see } = this.attention ?? {};
    const first = window === undefined ? () => 0 : (at: number) => at - window + 1;
    /** Positions that a row sees with a head of the period. */
    const seen = (row: number, head: number): SlotRange[] => {
      const at = position + row;
      const ranges = see?.(at, { layer, head }) ?? [[0, at + 1] as const];
      return merged(ranges, Math.max(0, first(at)), at + 1);
    };
    const heads = Array.from({ length: queryHeads }, (_, head) => head);
    if (pages !== undefined) {
      const tableOfHead = heads.map((head) => head % periods.heads);
      // Whole blocks: behind the last token of one others may lie.
      const slots = Math.ceil((position + rows) / slotsOfBlock) * slotsOfBlock;
      const inOrder = keyBlocks({ rows, slots, tableOfHead }, seen);
      return { ...inOrder, slots: pages.slots, blocks: inOrder.blocks.map((block) => pages.blocks[block]) };
    }
    if (held === undefined) {
      const inOrder = asCausal(position, rows, periods.heads, seen);
      if (inOrder !== undefined) return inOrder;
      const tableOfHead = heads.map((head) => head % periods.heads);
      return keyBlocks({ rows, slots: position + rows, tableOfHead }, seen);
    }
    const perKey = queryHeads / kvHeads;
    const tableOfHead = heads.map((head) => Math.floor(head / perKey) * periods.heads + (head % periods.heads));
    const before = held(layer, 0).length;
    return keyBlocks({ rows, slots: before + rows, tableOfHead }, (row, table) => {
      const positions = held(layer, Math.floor(table / periods.heads));
      const visible = seen(row, table % periods.heads);
      const slots = slotsWithin(positions, visible);
      // The pass's own tokens follow what is held, in their order.
      for (const [from, to] of visible) {
        if (to > position) slots.push([before + Math.max(0, from - position), before + to - position]);
      }
      return slots;
    });
  }

  [Symbol.dispose](): void {
    for (const sight of new Set(this.#loaded?.sights)) sight?.[Symbol.dispose]();
    this.#loaded = undefined;
  }
}

/** Ranges in order, cut to [least, end), those that touch as one. */
function merged(ranges: Iterable<SlotRange>, least: number, end: number): SlotRange[] {
  const cut = [...ranges].map(([from, to]) => [Math.max(least, from), Math.min(end, to)] as const);
  const result: [number, number][] = [];
  for (const [from, to] of cut.filter(([from, to]) => from < to).sort((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
    else result.push([from, to]);
  }
  return result;
}

/** What all rows see as a window, or everything before, where it is no more than that. */
function asCausal(
  position: number,
  rows: number,
  heads: number,
  seen: (row: number, head: number) => SlotRange[],
): SightSpec | undefined {
  let window: number | undefined;
  let longest = 0;
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < rows; row++) {
      const ranges = seen(row, head);
      const end = position + row + 1;
      if (ranges.length !== 1 || ranges[0][1] !== end) return undefined;
      const length = end - ranges[0][0];
      if (ranges[0][0] > 0) {
        if (window !== undefined && window !== length) return undefined;
        window = length;
      } else longest = Math.max(longest, length);
    }
  }
  // Rows that see from the beginning on fit into any window that is as long.
  if (window !== undefined && longest > window) return undefined;
  return { kind: "causal", window };
}

/** Slots that hold a position within one of the ranges, those that touch as one. */
function slotsWithin(positions: Int32Array, ranges: readonly SlotRange[]): SlotRange[] {
  const slots: [number, number][] = [];
  for (const [slot, position] of positions.entries()) {
    if (!ranges.some(([from, to]) => position >= from && position < to)) continue;
    const last = slots.at(-1);
    if (last !== undefined && last[1] === slot) last[1] = slot + 1;
    else slots.push([slot, slot + 1]);
  }
  return slots;
}
