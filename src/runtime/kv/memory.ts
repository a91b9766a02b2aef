import { UsageError } from "../../core/index.js";
import type { KvCache } from "../../kernels/index.js";
import { kiviCoded } from "../../kernels/internal.js";
import type { ForwardOptions, Model } from "../../model/index.js";
import type { Phase } from "../sight/dynamic.js";
import { DynamicSights } from "../sight/dynamicSights.js";
import type { Attention } from "../sight/index.js";
import { Sights } from "../sight/sights.js";
import { cacheShape } from "./cacheShape.js";
import { HeldTokens } from "./heldTokens.js";
import type { MemoryOptions } from "./memoryOptions.js";
import type { KvPages } from "./pages.js";
import type { PageTable } from "./pageTable.js";
import type { KvEviction } from "./policy.js";
import { keepsItsOwnCache } from "./prunedModels.js";

/** Whether keys and values of such a sequence can lie in pages: as f32, all of them, where nothing looks for single ones. */
export const inPages = ({ attention, kv }: Pick<MemoryOptions, "attention" | "kv">, model: Model): boolean =>
  kv?.eviction === undefined && kv?.codes === undefined && attention?.seek === undefined && !keepsItsOwnCache(model);

/** What a sequence remembers of its tokens: a cache, the policy that decides what stays there, and what passes see of it. */
export class SequenceMemory implements Disposable {
  #own: KvCache | undefined;
  readonly #pages: PageTable | undefined;
  readonly #pool: KvPages | undefined;
  readonly #capacity: number = Number.POSITIVE_INFINITY;
  /** Slots of each layer, where they follow what it holds. */
  #room: readonly number[] | undefined;
  readonly #mostSlots: number;
  /** Most tokens of one pass. */
  readonly mostRows: number;
  readonly #sights: Sights;
  readonly #attention: Attention | undefined;
  readonly #dynamic: DynamicSights | undefined;
  readonly #eviction: KvEviction | undefined;
  /** [layer][head]; policies that do not look at mass decide alike, and then it is one for all. */
  #held: HeldTokens[][] = [];
  #forgot = false;
  /** By layer, what slots had been given before the last tokens of a prompt looked. */
  #massBefore: Float32Array[] | undefined;
  /** Newest tokens that are not codes yet, and how many of the oldest are, where codes are made in groups. */
  readonly #residual: number | undefined;
  #coded = 0;

  /**
   * @param capacity tokens of the sequence at most
   * @throws UsageError for passes that are none, for a budget that renumbers beyond the model's positions, and for a dynamic
   * pattern with a policy that throws away; also see `Model.createCache`
   */
  constructor(
    readonly model: Model,
    capacity: number,
    options: MemoryOptions = {},
  ) {
    const { attention, pages } = options;
    const shape = cacheShape(model, capacity, options);
    const { kv, slots, rows } = shape;
    this.#eviction = kv?.eviction;
    this.#residual = kv?.codes?.residual;
    this.mostRows = this.#eviction === undefined && this.#residual === undefined ? capacity : rows;
    this.#mostSlots = slots;
    if (pages === undefined) {
      const { layers } = model.config;
      if (this.#eviction?.trained) this.#room = new Array<number>(layers).fill(Math.min(rows, slots));
      this.#own = model.createCache(capacity, {
        slots: this.#room ?? slots,
        mass: shape.mass,
        codes: shape.codes,
        allowBeyondTraining: this.#eviction?.renumbers,
      });
    } else {
      if (!inPages({ attention, kv }, model))
        throw new UsageError(
          `pages do not go with ${kv?.codes || kv?.eviction ? kv.text : (attention?.text ?? "a model that remembers more than keys and values")}`,
        );
      if (pages.model !== model) throw new UsageError("pages of another model");
      const { maxPositions } = model.config;
      if (!(Number.isInteger(capacity) && capacity >= 1 && capacity <= maxPositions))
        throw new UsageError(`room for ${capacity} tokens; the model was made for 1 to ${maxPositions}`);
      this.#capacity = capacity;
      this.#pages = pages.openTable();
      this.#pool = pages;
    }
    this.#sights = new Sights(model, attention?.seek === undefined ? attention : undefined);
    this.#attention = attention;
    const seeker = attention?.seek?.(model, capacity);
    this.#dynamic = seeker && new DynamicSights(model, seeker);
    this.#clear();
  }

  /** Where keys and values lie: of this sequence alone, or those of all that share its pages. */
  get cache(): KvCache {
    return this.#own ?? this.#pool!.cache;
  }

  /** Bytes of keys and values that there is room for, and of what tells which are still needed; pages that others have as well count here too. */
  get byteLength(): number {
    if (this.#own !== undefined) {
      const context = this.model.contextOf(this.#own)?.byteLength ?? 0;
      return this.#own.byteLength + context + (this.#dynamic?.byteLength ?? 0);
    }
    return this.#pages!.list.length * this.#pool!.pageBytes;
  }

  /** Its pages, where it has no cache of its own. */
  get pages(): PageTable | undefined {
    return this.#pages;
  }

  /** Whether every token stays. */
  get keepsAll(): boolean {
    return this.#eviction === undefined;
  }

  /**
   * How a pass of `rows` tokens is to be run.
   * @param run tokens before it
   * @param forward options by position in the sequence
   * @param phase what the tokens are; left out where that is not known
   */
  next(
    run: number,
    rows: number,
    forward: ForwardOptions = {},
    phase?: Phase,
  ): { start: number; options: ForwardOptions } {
    if (this.#pages !== undefined) {
      if (run + rows > this.#capacity)
        throw new UsageError(`${run + rows} tokens in a sequence with room for ${this.#capacity}`);
      const places = this.#pages.write(run, rows);
      const pages = { blocks: this.#pages.list, slots: this.cache.spec.slots };
      return { start: run, options: { ...forward, places, sights: this.#sights.of({ position: run, rows, pages }) } };
    }
    if (this.#eviction === undefined) {
      const sights = this.#sights.of({ position: run, rows });
      return { start: run, options: { ...forward, sights, findSight: this.#dynamic?.of(phase) } };
    }
    if (this.#eviction.trained) return this.#nextTrained(run, rows, forward);
    const [[first]] = this.#held;
    const position = first.nextTurn;
    const turns = this.#held.map((heads) => heads.map((held) => held.turns()));
    const lengths = this.#held.map(([held]) => held.length);
    const slot = lengths.every((length) => length === lengths[0]) ? lengths[0] : lengths;
    const held = (layer: number, head: number) => (turns[layer] ?? turns[0])[head] ?? turns[0][0];
    // While slots are positions, what is seen of slots is what is seen of positions.
    const pass = this.#forgot ? { position, rows, held } : { position, rows };
    const sparseFrom = (forward.sparseFrom ?? 0) + position - run;
    return { start: position, options: { ...forward, sparseFrom, slot, sights: this.#sights.of(pass) } };
  }

  /** What it sees is the model's own affair; here is room for it. */
  #nextTrained(run: number, rows: number, forward: ForwardOptions): { start: number; options: ForwardOptions } {
    const slot = this.#held.map(([{ length }]) => length);
    const room = this.model.contextOf(this.cache)!.fit(this.#room!, slot, rows, this.#mostSlots);
    if (room !== undefined) {
      this.#own = this.model.resizeCache(this.#own!, room, slot);
      this.#room = room;
    }
    return { start: run, options: { ...forward, slot } };
  }

  /** The attention pattern as it is written, with what it has found on the text so far. */
  get attention(): string | undefined {
    return this.#dynamic?.seeker.text ?? this.#attention?.text;
  }

  /** Tokens of the next pass when `left` are still to be run together: a prompt's last ones may have to be by themselves. */
  passRows(left: number): number {
    const { window = 0 } = this.#eviction?.prompt ?? {};
    return Math.min(this.mostRows, left > window ? left - window : left);
  }

  /**
   * After a pass: throws away what the policy does not keep.
   * @param run tokens before the pass @param left tokens that are still to be run with them
   */
  async ran(run: number, rows: number, left = 0): Promise<void> {
    if (this.#residual !== undefined) this.#coded = Math.max(this.#coded, kiviCoded(this.#residual, run));
    if (this.#eviction === undefined) return;
    const { budget, mass, renumbers } = this.#eviction;
    for (const held of this.#held.flat()) held.append(run, rows);
    if (this.#eviction.prompt !== undefined) {
      await this.#ranPrompt(this.#eviction.prompt, run + rows, left);
      return;
    }
    if (this.#eviction.trained) {
      this.#letGo(run + rows);
      return;
    }
    if (this.#held[0][0].length <= budget) return;
    this.#forgot = true;
    const masses = mass === undefined ? undefined : await this.model.backend.readMass(this.cache);
    const { layers, slots } = this.cache.spec;
    if (masses === undefined) {
      const moves = this.#held[0][0].evict(undefined, run + rows);
      const turned = renumbers ? this.#held[0][0].renumber(this.model.config.maxPositions - this.mostRows) : [];
      for (const [layer, { heads }] of layers.entries()) {
        const everyHead = Array.from({ length: heads }, (_, head) => head);
        this.#move(
          layer,
          everyHead.flatMap((head) => moves.map((move) => ({ ...move, head }))),
        );
        this.#turn(
          layer,
          everyHead.flatMap((head) => turned.map((turn) => ({ ...turn, head }))),
        );
      }
      return;
    }
    for (const [layer, heads] of this.#held.entries()) {
      const moves = heads.flatMap((held, head) =>
        held
          .evict(masses[layer].subarray(head * slots, (head + 1) * slots), run + rows)
          .map((move) => ({ ...move, head })),
      );
      this.#move(layer, moves);
    }
  }

  async #ranPrompt({ window, budget }: NonNullable<KvEviction["prompt"]>, run: number, left: number): Promise<void> {
    const { backend } = this.model;
    if (left === window) this.#massBefore = await backend.readMass(this.cache);
    const before = this.#massBefore;
    if (left > 0 || before === undefined) return;
    this.#massBefore = undefined;
    const masses = await backend.readMass(this.cache);
    const { slots } = this.cache.spec;
    for (const [layer, heads] of this.#held.entries()) {
      const most = budget(layer, this.#held.length, heads[0].length);
      if (heads[0].length <= most) continue;
      this.#forgot = true;
      const given = masses[layer].map((mass, at) => mass - before[layer][at]);
      const moves = heads.flatMap((held, head) =>
        held.evict(given.subarray(head * slots, (head + 1) * slots), run, most).map((move) => ({ ...move, head })),
      );
      this.#move(layer, moves);
    }
  }

  /** What the model has dropped goes, of all heads of a layer. */
  #letGo(run: number): void {
    const context = this.model.contextOf(this.cache)!;
    for (const [layer, [held]] of this.#held.entries()) {
      const dropped = new Set(context.dropped(layer));
      if (dropped.size === 0) continue;
      this.#forgot = true;
      const moves = held.evict(undefined, run, held.length - dropped.size, dropped);
      const heads = Array.from({ length: this.cache.spec.layers[layer].heads }, (_, head) => head);
      this.#move(
        layer,
        heads.flatMap((head) => moves.map((move) => ({ ...move, head }))),
      );
    }
  }

  #move(layer: number, moves: readonly { head: number; from: number; to: number }[]): void {
    if (moves.length === 0) return;
    this.model.moveKv(this.cache, layer, {
      heads: Uint32Array.from(moves, ({ head }) => head),
      from: Uint32Array.from(moves, ({ from }) => from),
      to: Uint32Array.from(moves, ({ to }) => to),
    });
  }

  #turn(layer: number, turns: readonly { head: number; slot: number; by: number }[]): void {
    if (turns.length === 0) return;
    const slots = Uint32Array.from(turns, ({ slot }) => slot);
    this.model.moveKv(this.cache, layer, {
      heads: Uint32Array.from(turns, ({ head }) => head),
      from: slots,
      to: slots,
      turn: Int32Array.from(turns, ({ by }) => by),
    });
  }

  /** Whether it can be as it was after `length` of `run` tokens. */
  canRewind(run: number, length: number): boolean {
    if (length < this.#coded && length > 0) return false;
    if (length === run || length === 0 || this.#eviction === undefined) return true;
    // What later tokens gave to earlier ones cannot be taken back; of a prompt it is looked at in the same run alone.
    return !this.#forgot && (this.#eviction.mass === undefined || this.#eviction.prompt !== undefined);
  }

  /** Forgets everything from position `length` on. Only where `canRewind`. */
  rewind(length: number): void {
    if (length === 0) this.#clear();
    else if (!this.#forgot) for (const held of this.#held.flat()) held.truncate(length);
  }

  #clear(): void {
    this.#forgot = false;
    this.#massBefore = undefined;
    this.#coded = 0;
    if (this.#eviction === undefined) return;
    const eviction = this.#eviction;
    const alike = [{ heads: 1 }];
    const byLayer = eviction.trained ? this.cache.spec.layers.flatMap(() => alike) : alike;
    const layers = eviction.mass === undefined ? byLayer : this.cache.spec.layers;
    this.#held = layers.map(({ heads }) => Array.from({ length: heads }, () => new HeldTokens(eviction)));
  }

  [Symbol.dispose](): void {
    this.#sights[Symbol.dispose]();
    this.#dynamic?.[Symbol.dispose]();
    this.#own?.[Symbol.dispose]();
    this.#pages?.[Symbol.dispose]();
  }
}
