import {
  type AttendStep,
  type BlockSpec,
  findStep,
  keptBy,
  type ModelConfig,
  type RopeSpec,
  type RotateStep,
  ropeAttentionFactor,
  ropeReach,
  ropeTables,
} from "../arch/index.js";
import { type FormatError, UsageError } from "../core/index.js";
import type { Activation, Backend, Chosen, KvCache, Matrix, RopeTable, Sight } from "../kernels/index.js";
import type { WeightFormatId } from "../pack/index.js";
import { BufferPool } from "./buffers.js";
import { compileBlock } from "./compile.js";
import { padTo4 } from "./footprint.js";
import { checkGenerates } from "./generates.js";
import type { ModelWeights } from "./load.js";
import { applyNorm } from "./operations.js";
import { bufferOf, type Operation, type Pass } from "./pass.js";
import type { MatrixChoice } from "./structure.js";
import { type BlockThresholds, blockThresholds } from "./thresholds.js";
import { Turns } from "./turns.js";
import type { ActivationThresholds, CacheOptions, EntryMoves, ForwardOptions, Model } from "./types.js";

/** Positions of a first rotary table, where a model has as many. */
const firstPositions = 4096;

/** Runs the description of a model: the steps of its blocks, compiled for one backend when it was loaded. */
export class Decoder implements Model {
  readonly weightBytes: { perToken: number; loaded: number };
  readonly logitCols: number;
  readonly #blocks: readonly (readonly Operation[])[];
  readonly #buffers: BufferPool;
  /** Passes share the buffers: those of different sequences take turns. */
  readonly #turns = new Turns();
  /** The most tokens that the sequence of a cache may have. */
  readonly #lengths = new WeakMap<KvCache, number>();
  readonly #tables = new Map<string, RopeTable>();
  /** What blocks were made to see, where it is not all before, loaded once. */
  readonly #sights = new Map<string, Sight>();
  /** Thresholds by the steps of the blocks, arranged once for each setting. */
  readonly #arranged = new WeakMap<ActivationThresholds, readonly BlockThresholds[]>();

  constructor(
    readonly config: ModelConfig,
    readonly backend: Backend,
    readonly weights: WeightFormatId,
    readonly loaded: ModelWeights,
    readonly thresholds: ActivationThresholds | undefined,
  ) {
    const { spec } = config;
    this.weightBytes = loaded.bytes;
    const { head } = spec;
    this.logitCols = head.kind === "none" ? 0 : padTo4(head.map.rows);
    // The steps of a head run like those of one more block.
    const blocks = head.kind === "classifier" ? [...spec.blocks, head] : spec.blocks;
    const all = [...loaded.blocks, ...(loaded.headSteps ? [loaded.headSteps] : [])];
    this.#blocks = blocks.map((block, layer) => compileBlock(block, all[layer], backend));
    const ranks = all.map(({ lowRank }) => lowRank);
    this.#buffers = new BufferPool(backend, spec.hiddenSize, blocks, ranks);
  }

  get choices(): readonly MatrixChoice[] {
    return this.loaded.choices;
  }

  get damage(): FormatError | undefined {
    return this.loaded.damage;
  }

  createCache(capacity: number, options: CacheOptions = {}): KvCache {
    const { maxPositions, spec } = this.config;
    if (!Number.isSafeInteger(capacity) || capacity < 1) throw new UsageError(`a cache of ${capacity} positions`);
    if (capacity > maxPositions && !options.allowBeyondTraining) {
      throw new UsageError(
        `a cache of ${capacity} positions; the model was made for ${maxPositions} (allowBeyondTraining lifts the limit)`,
      );
    }
    const layers = spec.blocks.map(({ steps }) => {
      return keptBy(steps.find((step) => step.do === "attend") as AttendStep);
    });
    const { slots = capacity, mass, codes } = options;
    const cache = this.backend.createKvCache({ layers, slots, mass, codes });
    this.#lengths.set(cache, capacity);
    return cache;
  }

  forward(
    tokens: Uint32Array | Chosen,
    cache: KvCache,
    start: number,
    options: ForwardOptions = {},
  ): Promise<Activation | undefined> {
    return this.#turns.run(async () => {
      checkGenerates(this);
      const n = tokens.length;
      const known = tokens instanceof Uint32Array;
      if (known) this.#checkTokens(tokens);
      const { slot = start } = options;
      const slots = typeof slot === "number" ? [slot] : slot;
      const valid = [start, ...slots].every((first) => Number.isSafeInteger(first) && first >= 0);
      const last = Math.max(...slots);
      if (!valid || last + n > cache.spec.slots) {
        const where = last === start ? "" : `slots ${last} … ${last + n - 1} of `;
        throw new UsageError(`positions ${start} … ${start + n - 1} in ${where}a cache of ${cache.spec.slots}`);
      }
      const residual = this.#buffers.residual(n);
      if (known) this.backend.embed(residual, this.loaded.embedding, tokens);
      else tokens.embed(residual, this.loaded.embedding);
      this.#finishEmbedding(residual, start);
      for (let layer = 0; layer < this.config.spec.blocks.length; layer++)
        await this.#block(layer, residual, cache, start, options);

      const { logits = "last" } = options;
      if (logits === "none") return undefined;
      return this.head(logits === "all" ? residual : residual.rowRange(n - 1, 1));
    });
  }

  embed(tokens: Uint32Array, start = 0, types?: Uint32Array): Activation {
    this.#checkTokens(tokens);
    const x = this.backend.allocate(tokens.length, this.config.hiddenSize);
    this.backend.embed(x, this.loaded.embedding, tokens);
    this.#finishEmbedding(x, start, types);
    return x;
  }

  /** What comes on top of a row of the table: its scale, the position, a norm. */
  #finishEmbedding(x: Activation, start: number, typeIds: Uint32Array = new Uint32Array(x.rows)): void {
    const { backend, loaded } = this;
    const { scale, positions, types, norm } = this.config.spec.embedding;
    const addRows = (table: Matrix, ids: Uint32Array) => {
      const added = backend.allocate(x.rows, x.cols);
      backend.embed(added, table, ids);
      backend.add(x, added);
      backend.release(added);
    };
    if (scale !== undefined) backend.map(x, x, { f: "scale", by: scale });
    if (positions !== undefined) {
      const ids = Uint32Array.from({ length: x.rows }, (_, r) => start + r + positions.offset);
      const { table } = positions;
      if (start + x.rows + positions.offset > table.shape[0]) {
        throw new UsageError(
          `position ${start + x.rows - 1}; the model has learned ${table.shape[0] - positions.offset}`,
        );
      }
      addRows(loaded.positions!, ids);
    }
    if (types !== undefined) addRows(loaded.types!, typeIds);
    if (norm !== undefined) applyNorm(backend, x, x, norm, loaded.embeddingNorm!);
  }

  block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions = {}): Promise<void> {
    return this.#turns.run(() => this.#block(layer, x, cache, start, options));
  }

  async #block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions): Promise<void> {
    const { thresholds = this.thresholds, slot = start, sights } = options;
    const pass: Pass = {
      backend: this.backend,
      layer,
      x,
      buffers: this.#buffers.forRows(x.rows, layer),
      buffersFor: (rows) => this.#buffers.forRows(rows, layer),
      cache,
      start,
      slot: typeof slot === "number" ? slot : slot[layer],
      sight: (step) => (sights === undefined ? this.#sightOf(step) : sights[layer]),
      table: (step) => this.#ropeTable(step, start + x.rows, this.#lengthOf(cache)),
      thresholds: thresholds === undefined || thresholds === "dense" ? undefined : this.#arrange(thresholds)[layer],
      sparseFromRow: Math.max(0, (options.sparseFrom ?? 0) - start),
      tap: options.tap,
    };
    for (const operation of this.#blocks[layer]) {
      const waiting = operation(pass);
      if (waiting !== undefined) await waiting;
    }
  }

  moveKv(cache: KvCache, layer: number, { turn, ...moves }: EntryMoves): void {
    const rotation = keyRotationOf(this.config.spec.blocks[layer]);
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

  #lengthOf(cache: KvCache): number {
    return this.#lengths.get(cache) ?? this.config.maxPositions;
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

  head(x: Activation): Activation {
    const { backend, loaded } = this;
    const { finalNorm } = this.config.spec;
    let normed = x;
    if (finalNorm !== undefined) {
      normed = this.#buffers.normed(x.rows);
      applyNorm(backend, normed, x, finalNorm, loaded.finalNorm!);
    }
    const { head } = this.config.spec;
    if (head.kind === "none" || loaded.head === undefined) {
      throw new UsageError(`this ${this.config.modelType} model has no head: embedText takes what it makes of a text`);
    }
    if (head.kind === "classifier") normed = this.#beforeClassifier(normed, head.from);
    const logits = backend.allocate(x.rows, this.logitCols);
    backend.linear(logits, normed, loaded.head.matrix, { bias: loaded.head.bias });
    if (head.kind === "vocabulary" && head.softcap !== undefined) {
      backend.map(logits, logits, { f: "softcap", by: head.softcap });
    }
    return logits;
  }

  /** The steps of a head, whose operations neither see other rows nor wait. */
  #beforeClassifier(x: Activation, from: string): Activation {
    const layer = this.config.spec.blocks.length;
    const buffers = this.#buffers.forRows(x.rows, layer);
    const pass = { backend: this.backend, layer, x, buffers, sparseFromRow: 0 } as Pass;
    for (const operation of this.#blocks[layer]) operation(pass);
    return bufferOf(pass, from);
  }

  [Symbol.dispose](): void {
    this.#buffers[Symbol.dispose]();
    for (const sight of this.#sights.values()) sight[Symbol.dispose]();
  }

  #arrange(thresholds: ActivationThresholds): readonly BlockThresholds[] {
    let arranged = this.#arranged.get(thresholds);
    if (arranged === undefined) {
      arranged = blockThresholds(thresholds, this.config.spec);
      this.#arranged.set(thresholds, arranged);
    }
    return arranged;
  }

  /** A rotary table, for at least `positions`. It grows with the positions that are met, not with what a cache could hold. */
  #ropeTable(step: RotateStep, positions: number, length: number, factor = ropeAttentionFactor(step.rope)): RopeTable {
    const { rope, every: headDim, first, width, pairs } = step;
    const key = [keyOf(rope), ropeReach(rope, length), factor, headDim, first, width, pairs].join();
    let table = this.#tables.get(key);
    if (table === undefined || table.positions < positions) {
      const enough = Math.max(positions, Math.min(firstPositions, this.config.maxPositions));
      const { cos, sin } = ropeTables(rope, width, 2 ** Math.ceil(Math.log2(enough)), { length, factor });
      table = this.backend.loadRope(cos, sin, { headDim, first, width, pairs });
      this.#tables.set(key, table);
    }
    return table;
  }

  #checkTokens(tokens: Uint32Array): void {
    if (tokens.length === 0) throw new UsageError("no tokens to run");
    for (const id of tokens) {
      if (id >= this.config.vocabSize) throw new UsageError(`token ${id} in a vocabulary of ${this.config.vocabSize}`);
    }
  }
}

/** How keys are rotated as they are kept: of latent attention their last columns. */
function keyRotationOf(block: BlockSpec): RotateStep | undefined {
  const rotate = findStep(block, "rotate");
  const latent = findStep(block, "attend")?.latent;
  return rotate && latent ? { ...rotate, every: latent.rank + latent.width, first: latent.rank } : rotate;
}

const keys = new WeakMap<RopeSpec, string>();

/** Blocks describe equal embeddings each for itself. */
function keyOf(rope: RopeSpec): string {
  let key = keys.get(rope);
  if (key === undefined) {
    key = JSON.stringify(rope);
    keys.set(rope, key);
  }
  return key;
}
