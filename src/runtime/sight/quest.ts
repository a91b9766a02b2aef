import { findStep } from "../../arch/index.js";
import { keptBy } from "../../arch/internal.js";
import { type Activation, type ChosenSlots, slotsOfBlock } from "../../kernels/index.js";
import { setSlots } from "../../kernels/internal.js";
import type { Model } from "../../model/index.js";
import { count, oneOf } from "../parameters.js";
import { dynamicPattern, type Look, type Seeker, shapeOf } from "./dynamic.js";
import { largest } from "./largest.js";
import { padded } from "./scores.js";

interface Values {
  readonly budget: number;
  readonly page: number;
  readonly dense: number;
  readonly group: "each" | "max" | "sum";
  readonly prompts: "dense" | "sparse";
}

/** Pages that are read at least. */
const leastPages = 3;

/**
 * Quest (2406.10774): of every page of keys the least and the largest number of each channel are kept, which bound every
 * score within it; each token that is generated reads the pages with the largest bounds. Nothing is thrown away.
 */
export const quest = dynamicPattern({
  summary: "pages with the largest bounds on their scores, while generating (Quest)",
  parameters: {
    budget: count("positions that are read", 1, 2048),
    page: count("positions of a page", 1, 16),
    dense: count("first layers that see all", 0, 2),
    group: oneOf(
      "whether heads that share a key head read pages each of its own, or the same by joined bounds",
      "each",
      "max",
      "sum",
    ),
    prompts: oneOf("whether tokens of a prompt see all", "dense", "sparse"),
  },
  seek: (values) => (model, capacity) => new Pages(values, model, capacity),
});

/** The least and the largest key of every page, by layer: f32 [pages, kvHeads * key] each. */
class Pages implements Seeker {
  readonly #bounds: { least: Activation; largest: Activation }[] = [];
  /** Slots whose keys are in the bounds, by layer: those of a sequence that was copied are not. */
  readonly #bounded: number[] = [];

  constructor(
    readonly values: Values,
    readonly model: Model,
    readonly capacity: number,
  ) {}

  get mostBytes(): number {
    const pages = Math.ceil(this.capacity / this.values.page);
    const layers = this.model.config.spec.blocks.slice(this.values.dense);
    const kept = layers.map((block) => keptBy(findStep(block, "attend")!));
    return kept.reduce((sum, { heads, key }) => sum + 2 * pages * heads * key * Float32Array.BYTES_PER_ELEMENT, 0);
  }

  async find(look: Look): Promise<ChosenSlots | undefined> {
    const { budget, page, dense, prompts } = this.values;
    const { layer, phase } = look;
    const { slots } = shapeOf(look);
    if (layer < dense) return undefined;
    const keys = this.#update(look);
    const pages = Math.max(leastPages, Math.floor(budget / page));
    if (Math.ceil(slots / page) <= pages || (phase === "prompt" && prompts === "dense")) return undefined;
    return this.#choose(await this.#scores(look, keys), pages, look);
  }

  /** Bounds of the pages that the pass wrote to. @returns keys from the page of its first row on */
  #update(look: Look): Activation {
    const { page } = this.values;
    const { backend, cache, layer, slot, scratch } = look;
    const { slots, keyCols } = shapeOf(look);
    const own = Math.floor(slot / page);
    const first = Math.min(own, Math.floor((this.#bounded[layer] ?? 0) / page));
    this.#bounded[layer] = slots;
    const touched = Math.ceil(slots / page) - first;
    const bounds = this.#of(layer, keyCols);
    const keys = scratch("keys", slots - first * page, keyCols);
    backend.readKeys(keys, cache, layer, first * page);
    for (const pool of ["least", "largest"] as const) {
      backend.poolRows(bounds[pool].rowRange(first, touched), keys, { pool, every: page });
    }
    return keys.rowRange((own - first) * page, slots - own * page);
  }

  #of(layer: number, cols: number) {
    const { backend } = this.model;
    const rows = Math.ceil(this.capacity / this.values.page);
    this.#bounds[layer] ??= { least: backend.allocate(rows, cols), largest: backend.allocate(rows, cols) };
    return this.#bounds[layer];
  }

  /** Σ max(q · least, q · largest) of every page, [rows][queryHeads][room]; of the row's own page, of its keys so far. */
  async #scores(look: Look, keys: Activation) {
    const { page } = this.values;
    const { backend, layer, q, slot, queryHeads, scratch } = look;
    const { slots, kvHeads, shared, keyCols } = shapeOf(look);
    const { least, largest: most } = this.#bounds[layer];
    const pages = Math.ceil(slots / page);
    const room = padded(pages);
    const scores = scratch("bounds", q.rows, queryHeads * room);
    const [up, down] = ["up", "down"].map((name) => scratch(name, q.rows, q.cols));
    backend.map(up, q, "relu");
    backend.map(down, q, { f: "scale", by: -1 });
    backend.map(down, down, "relu");
    const heads = { queryHeads, kvHeads };
    backend.headScores(scores, up, most.rowRange(0, pages), { ...heads, scale: 1 });
    backend.headScores(scores, down, least.rowRange(0, pages), { ...heads, scale: -1, accumulate: true });
    const bounds = await backend.read(scores);
    if (q.rows === 1) return { bounds, room };
    // Later rows of the pass have widened the bounds of the pages that they lie in.
    const [queries, written] = [await backend.read(q), await backend.read(keys)];
    const width = keyCols / kvHeads;
    const firstSlot = Math.floor(slot / page) * page;
    for (let row = 0; row < q.rows; row++) {
      const own = Math.floor((slot + row) / page);
      for (let h = 0; h < queryHeads; h++) {
        const keyAt = Math.floor(h / shared) * width;
        let bound = 0;
        for (let c = 0; c < width; c++) {
          const query = queries[(row * queryHeads + h) * width + c];
          let best = Number.NEGATIVE_INFINITY;
          for (let s = own * page; s <= slot + row; s++) {
            best = Math.max(best, query * written[(s - firstSlot) * keyCols + keyAt + c]);
          }
          bound += best;
        }
        bounds[(row * queryHeads + h) * room + own] = bound;
      }
    }
    return { bounds, room };
  }

  #choose({ bounds, room }: { bounds: Float32Array; room: number }, pages: number, look: Look): ChosenSlots {
    const { page, group } = this.values;
    const { slot, queryHeads } = look;
    const { slots, shared } = shapeOf(look);
    const joined = group === "each" ? 1 : shared;
    const chosen = new Map<number, Uint32Array>();
    const of = (row: number, first: number): Uint32Array => {
      const visible = Math.floor((slot + row) / page) + 1;
      const at = (head: number) => (row * queryHeads + head) * room;
      const scores = bounds.slice(at(first), at(first) + visible);
      for (let h = first + 1; h < first + joined; h++) {
        for (let p = 0; p < visible; p++) {
          const score = bounds[at(h) + p];
          scores[p] = group === "sum" ? scores[p] + score : Math.max(scores[p], score);
        }
      }
      const words = new Uint32Array(Math.ceil(slots / slotsOfBlock));
      for (const p of largest(scores, pages)) setSlots(words, p * page, Math.min(slots, (p + 1) * page));
      return words;
    };
    return {
      alike: false,
      words: (row, head) => {
        const first = head - (head % joined);
        const key = row * queryHeads + first;
        let words = chosen.get(key);
        if (words === undefined) {
          words = of(row, first);
          chosen.set(key, words);
        }
        return words;
      },
    };
  }

  [Symbol.dispose](): void {
    for (const bounds of this.#bounds) {
      for (const held of Object.values(bounds ?? {})) this.model.backend.release(held);
    }
    this.#bounds.length = 0;
  }
}
