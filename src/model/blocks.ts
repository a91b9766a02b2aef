import {
  type AttendStep,
  type BlockSpec,
  findStep,
  type ModelSpec,
  type RotateStep,
  ropeTables,
} from "../arch/index.js";
import { ropeAttentionFactor, ropeReach } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import type { Activation, Backend, KvCache, Region, RopeTable, Sight } from "../kernels/index.js";
import { adaptedRows } from "./adapterPairs.js";
import { BufferPool } from "./buffers.js";
import { cacheSpec } from "./cacheSpec.js";
import { type CompiledBlock, compileBlock } from "./compile.js";
import type { CacheContext, LayerContext } from "./layerContext.js";
import {
  bufferOf,
  type LoadedGates,
  type LoadedPruning,
  type Pass,
  type PassPart,
  type RunOperations,
} from "./pass.js";
import type { TokenHistory } from "./thin/history.js";
import { type BlockThresholds, blockThresholds, exactZeros } from "./thresholds.js";
import { Turns } from "./turns.js";
import type {
  ActivationThresholds,
  CacheOptions,
  EntryMoves,
  ForwardOptions,
  HeldContext,
  SequencePart,
  TogetherOptions,
} from "./types.js";
import type { BlockWeights } from "./weights.js";

/** Positions of a first rotary table, where a model has as many. */
const firstPositions = 4096;

/** Blocks of a model, their steps compiled for one backend, with the working memory and the tables that they share. */
export class Blocks implements Disposable {
  readonly buffers: BufferPool;
  readonly #compiled: readonly CompiledBlock[];
  /** Passes share the buffers: those of different sequences take turns. */
  readonly #turns = new Turns();
  /** The most tokens that the sequence of a cache may have. */
  readonly #lengths = new WeakMap<KvCache, number>();
  readonly #tables = new Map<string, RopeTable>();
  /** What blocks were made to see, where it is not all before, loaded once. */
  readonly #sights = new Map<string, Sight>();
  readonly #pruning: LoadedPruning | undefined;
  readonly #gates: readonly (LoadedGates | undefined)[];
  /** Of caches of a model that prunes its context. */
  readonly #contexts = new WeakMap<KvCache, CacheContext>();
  /** What convolutions over positions have seen, of caches of a model that has any. */
  readonly #histories = new WeakMap<KvCache, TokenHistory>();
  readonly #openHistory: (() => TokenHistory) | undefined;
  /** Which layers see everything before, by themselves. */
  readonly #seesAll: readonly boolean[];
  /** Thresholds by the steps of the blocks, arranged once for each setting. */
  readonly #exact: readonly BlockThresholds[] | undefined;
  readonly #arranged = new WeakMap<ActivationThresholds, readonly BlockThresholds[]>();

  /**
   * @param spec of which only the blocks are run
   * @param region where the weights lie, and tables are put; it goes with the blocks
   * @param head steps behind the blocks, for `runHead`
   */
  constructor(
    readonly backend: Backend,
    readonly spec: ModelSpec,
    readonly region: Region,
    weights: readonly BlockWeights[],
    head?: { block: BlockSpec; weights: BlockWeights },
  ) {
    this.#seesAll = spec.blocks.map((block) => findStep(block, "attend")?.sight.kind === "causal");
    this.#pruning = weights.flatMap(({ prunings }) => [...prunings.values()])[0];
    this.#gates = weights.map(({ gates }) => gates);
    this.#openHistory = weights.flatMap(({ small }) => [...small.values()]).find(({ open }) => open)?.open;
    this.#exact = exactZeros(spec);
    // The steps of a head run like those of one more block.
    const blocks = [...spec.blocks, ...(head ? [head.block] : [])];
    const all = [...weights, ...(head ? [head.weights] : [])];
    this.#compiled = blocks.map((block, layer) => compileBlock(block, all[layer], backend));
    const ranks = all.map(({ lowRank }) => lowRank);
    this.buffers = new BufferPool(backend, spec.hiddenSize, blocks, ranks);
  }

  /** Lets work that uses the buffers run after what does so already. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.run(work);
  }

  /** Keys and values of all blocks. @param capacity positions */
  createCache(capacity: number, options: Omit<CacheOptions, "allowBeyondTraining"> = {}): KvCache {
    const cache = this.backend.createKvCache(cacheSpec(this.spec, capacity, options));
    this.#lengths.set(cache, capacity);
    return cache;
  }

  /** See `Model.resizeCache`. */
  resizeCache(cache: KvCache, slots: readonly number[], held: readonly number[]): KvCache {
    const resized = this.createCache(this.#lengthOf(cache), { slots });
    try {
      this.backend.copyKv(cache, resized, held);
    } catch (error) {
      resized[Symbol.dispose]();
      throw error;
    }
    const context = this.#contexts.get(cache);
    if (context !== undefined) this.#contexts.set(resized, context);
    const history = this.#histories.get(cache);
    if (history !== undefined) this.#histories.set(resized, history);
    cache[Symbol.dispose]();
    return resized;
  }

  /** See `Model.contextOf`. */
  heldOf(cache: KvCache): HeldContext | undefined {
    return this.contextOf(cache) ?? (this.#openHistory && this.#history(cache, undefined));
  }

  /** Which tokens of a cache are still needed, in a model that prunes its context. */
  contextOf(cache: KvCache): CacheContext | undefined {
    if (this.#pruning === undefined) return undefined;
    let context = this.#contexts.get(cache);
    if (context === undefined) {
      context = this.#pruning.open(this.spec.blocks.map((block) => findStep(block, "attend")));
      this.#contexts.set(cache, context);
    }
    return context;
  }

  /** Runs one block in place on the residual stream; see `inTurn`. Thresholds left out are "exact". */
  run(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions = {}): Promise<void> {
    const {
      slot,
      places,
      sights,
      findSight,
      adapters,
      thresholds,
      sparseFrom = 0,
      tap,
      keysOnly,
      onAttended,
    } = options;
    const part = { rows: x.rows, cache, start, slot, places, sights, findSight, adapters };
    return this.runTogether(layer, x, [part], {
      thresholds,
      sparseFromRow: Math.max(0, sparseFrom - start),
      tap,
      keysOnly,
      onAttended,
    });
  }

  /** As `run`, of rows of several sequences. */
  async runTogether(
    layer: number,
    x: Activation,
    parts: readonly (Omit<SequencePart, "tokens" | "logits"> & { rows: number })[],
    {
      thresholds,
      sparseFromRow = 0,
      tap,
      keysOnly = false,
      onAttended,
    }: TogetherOptions & Pick<ForwardOptions, "tap" | "keysOnly" | "onAttended">,
  ): Promise<void> {
    let firstRow = 0;
    const pass: Pass = {
      backend: this.backend,
      layer,
      x,
      buffers: this.buffers.forRows(x.rows, layer),
      scratch: (...asked) => this.buffers.scratch(...asked),
      buffersFor: (rows) => this.buffers.forRows(rows, layer),
      parts: parts.map(({ rows, cache, start, slot: first = start, places, sights, findSight }) => {
        const slot = typeof first === "number" ? first : first[layer];
        const part: PassPart = {
          firstRow,
          rows,
          cache,
          start,
          slot: places?.length === 1 ? places[0].slot : places ? 0 : slot,
          places: places ?? [{ rows, slot }],
          sight: (step) => (sights === undefined ? this.#sightOf(step) : sights[layer]),
          findSight: this.#seesAll[layer] ? findSight : undefined,
          context: (layer) => this.#layerContext(cache, layer, places),
          history: () => this.#history(cache, places),
          table: (step) => this.#ropeTable(step, start + rows, this.#lengthOf(cache)),
        };
        firstRow += rows;
        return part;
      }),
      adapted: adaptedRows(parts),
      thresholds: this.#arrange(thresholds)?.[layer],
      sparseFromRow,
      tap,
      keysOnly,
    };
    const { operations, keyOperations, attentionOperations, gated } = this.#compiled[layer];
    const count = keysOnly ? keyOperations : operations.length;
    const runOperations: RunOperations = async (pass, from, to) => {
      for (let i = from; i < to; i++) {
        const waiting = operations[i](pass);
        if (waiting !== undefined) await waiting;
        if (onAttended !== undefined && i + 1 === attentionOperations) await onAttended();
      }
    };
    const gates = this.#gates[layer];
    if (gates === undefined) return runOperations(pass, 0, count);
    return gates.run(pass, runOperations, count, gated, parts);
  }

  /** Runs the steps of the head, whose operations neither see other rows nor wait. @returns the buffer `from` */
  runHead(x: Activation, from: string): Activation {
    const layer = this.spec.blocks.length;
    const buffers = this.buffers.forRows(x.rows, layer);
    const pass = { backend: this.backend, layer, x, buffers, adapted: [], sparseFromRow: 0 } as unknown as Pass;
    for (const operation of this.#compiled[layer].operations) operation(pass);
    return bufferOf(pass, from);
  }

  /** See `Model.moveKv`. */
  moveKv(cache: KvCache, layer: number, { turn, ...moves }: EntryMoves): void {
    const rotation = keyRotationOf(this.spec.blocks[layer]);
    // All heads of a layer drop the same: what is told of the first is told of all.
    const ofFirst = (slots: Uint32Array) => slots.filter((_, m) => moves.heads[m] === 0);
    this.#contexts.get(cache)?.layer(layer)?.move(ofFirst(moves.from), ofFirst(moves.to));
    if (this.#openHistory && turn !== undefined)
      throw new UsageError(
        "tokens of a model of convolutions over positions keep their positions: leave positions=slots out",
      );
    // Keys that nothing rotates count as of any position.
    if (turn === undefined || rotation === undefined) {
      this.backend.moveKv(cache, layer, moves);
      return;
    }
    const most = turn.reduce((largest, by) => Math.max(largest, Math.abs(by)), 0);
    // What was rotated before has its factor already.
    const table = this.#ropeTable(rotation, most + 1, this.#lengthOf(cache), 1);
    this.backend.moveKv(cache, layer, { ...moves, turn: { table, by: turn } });
  }

  /** @throws UsageError for slots that are given out in pages, which tokens of several sequences have */
  #layerContext(cache: KvCache, layer: number, places: SequencePart["places"]): LayerContext {
    if (places !== undefined)
      throw new UsageError("a model that prunes its context keeps each text in a cache of its own");
    return this.contextOf(cache)!.layer(layer)!;
  }

  /** @throws UsageError as `#layerContext` */
  #history(cache: KvCache, places: SequencePart["places"]): TokenHistory {
    if (places !== undefined)
      throw new UsageError("a model of convolutions over positions keeps each text in a cache of its own");
    let history = this.#histories.get(cache);
    if (history === undefined) {
      history = this.#openHistory!();
      this.#histories.set(cache, history);
    }
    return history;
  }

  #lengthOf(cache: KvCache): number {
    return this.#lengths.get(cache) ?? this.spec.maxPositions;
  }

  #sightOf({ sight }: AttendStep): Sight | undefined {
    if (sight.kind === "causal") return undefined;
    const key = JSON.stringify(sight);
    let loaded = this.#sights.get(key);
    if (loaded === undefined) {
      loaded = this.backend.loadSight(
        sight.kind === "window" ? { kind: "causal", window: sight.window } : { kind: "bidirectional" },
      );
      this.#sights.set(key, loaded);
    }
    return loaded;
  }

  #arrange(thresholds: ForwardOptions["thresholds"]): readonly BlockThresholds[] | undefined {
    if (thresholds === "dense") return undefined;
    if (thresholds === undefined || thresholds === "exact") return this.#exact;
    let arranged = this.#arranged.get(thresholds);
    if (arranged === undefined) {
      arranged = blockThresholds(thresholds, this.spec);
      this.#arranged.set(thresholds, arranged);
    }
    return arranged;
  }

  /** A rotary table, for at least `positions`. It grows with the positions that are met, not with what a cache could hold. */
  #ropeTable(step: RotateStep, positions: number, length: number, factor = ropeAttentionFactor(step.rope)): RopeTable {
    const { rope, every: headDim, first, width, pairs } = step;
    const key = `${keyOf(step)} ${ropeReach(rope, length)} ${factor}`;
    let table = this.#tables.get(key);
    if (table === undefined || table.positions < positions) {
      const enough = Math.max(positions, Math.min(firstPositions, this.spec.maxPositions));
      const { cos, sin } = ropeTables(rope, width, 2 ** Math.ceil(Math.log2(enough)), { length, factor });
      table = this.region.loadRope(cos, sin, { headDim, first, width, pairs });
      this.#tables.set(key, table);
    }
    return table;
  }

  [Symbol.dispose](): void {
    this.buffers[Symbol.dispose]();
    for (const sight of this.#sights.values()) sight[Symbol.dispose]();
    this.region[Symbol.dispose]();
  }
}

/** How keys are rotated as they are kept: of latent attention their last columns. */
function keyRotationOf(block: BlockSpec): RotateStep | undefined {
  const rotate = findStep(block, "rotate");
  const latent = findStep(block, "attend")?.latent;
  return rotate && latent ? { ...rotate, every: latent.rank + latent.width, first: latent.rank } : rotate;
}

const keys = new WeakMap<RotateStep, string>();

/** Blocks describe equal embeddings each for itself. */
function keyOf(step: RotateStep): string {
  let key = keys.get(step);
  if (key === undefined) {
    const { rope, every, first, width, pairs } = step;
    key = JSON.stringify([rope, every, first, width, pairs]);
    keys.set(step, key);
  }
  return key;
}
