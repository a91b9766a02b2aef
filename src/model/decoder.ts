import { type ModelConfig, type RopeSpec, type RotateStep, ropeTables } from "../arch/index.js";
import { type FormatError, UsageError } from "../core/index.js";
import type { Activation, Backend, Chosen, KvCache, RopeTable } from "../kernels/index.js";
import type { WeightFormatId } from "../pack/index.js";
import { BlockCaches } from "./blockCaches.js";
import { BufferPool } from "./buffers.js";
import { compileBlock } from "./compile.js";
import { padTo4 } from "./footprint.js";
import type { ModelWeights } from "./load.js";
import { applyNorm } from "./operations.js";
import type { Operation, Pass } from "./pass.js";
import type { MatrixChoice } from "./structure.js";
import { type BlockThresholds, blockThresholds } from "./thresholds.js";
import { Turns } from "./turns.js";
import type { ActivationThresholds, ForwardOptions, Model } from "./types.js";

/** Runs the description of a model: the steps of its blocks, compiled for one backend when it was loaded. */
export class Decoder implements Model {
  readonly weightBytes: { perToken: number; loaded: number };
  readonly logitCols: number;
  readonly #blocks: readonly (readonly Operation[])[];
  readonly #buffers: BufferPool;
  /** Passes share the buffers: those of different sequences take turns. */
  readonly #turns = new Turns();
  readonly #tables = new Map<string, RopeTable>();
  /** Thresholds by the steps of the blocks, arranged once for each setting. */
  readonly #arranged = new WeakMap<ActivationThresholds, readonly BlockThresholds[]>();
  #thresholds: ActivationThresholds | undefined;

  constructor(
    readonly config: ModelConfig,
    readonly backend: Backend,
    readonly weights: WeightFormatId,
    readonly loaded: ModelWeights,
  ) {
    const { spec } = config;
    this.weightBytes = loaded.bytes;
    this.logitCols = padTo4(spec.vocabSize);
    this.#blocks = spec.blocks.map((block, layer) => compileBlock(block, loaded.blocks[layer], backend));
    const ranks = loaded.blocks.map(({ lowRank }) => lowRank);
    this.#buffers = new BufferPool(backend, spec.hiddenSize, spec.blocks, ranks);
  }

  get choices(): readonly MatrixChoice[] {
    return this.loaded.choices;
  }

  get damage(): FormatError | undefined {
    return this.loaded.damage;
  }

  get thresholds(): ActivationThresholds | undefined {
    return this.#thresholds;
  }

  set thresholds(thresholds: ActivationThresholds | undefined) {
    if (thresholds !== undefined) this.#arrange(thresholds);
    this.#thresholds = thresholds;
  }

  createCache(capacity: number, options: { allowBeyondTraining?: boolean } = {}): KvCache {
    const { layers, blocks, headDim, maxPositions } = this.config;
    if (!Number.isSafeInteger(capacity) || capacity < 1) throw new UsageError(`a cache of ${capacity} positions`);
    if (capacity > maxPositions && !options.allowBeyondTraining) {
      throw new UsageError(
        `a cache of ${capacity} positions; the model was made for ${maxPositions} (allowBeyondTraining lifts the limit)`,
      );
    }
    for (const { steps } of this.config.spec.blocks) {
      for (const step of steps) if (step.do === "rotate") this.#ropeTable(step, capacity);
    }
    const [{ kvHeads }] = blocks;
    if (blocks.some((block) => block.kvHeads !== kvHeads)) return new BlockCaches(this.backend, this.config, capacity);
    return this.backend.createKvCache({ layers, kvHeads, headDim, capacity });
  }

  forward(
    tokens: Uint32Array | Chosen,
    cache: KvCache,
    start: number,
    options: ForwardOptions = {},
  ): Promise<Activation | undefined> {
    return this.#turns.run(async () => {
      const n = tokens.length;
      const known = tokens instanceof Uint32Array;
      if (known) this.#checkTokens(tokens);
      if (!Number.isSafeInteger(start) || start < 0 || start + n > cache.spec.capacity) {
        throw new UsageError(`positions ${start} … ${start + n - 1} in a cache of ${cache.spec.capacity}`);
      }
      const residual = this.#buffers.residual(n);
      if (known) this.backend.embed(residual, this.loaded.embedding, tokens);
      else tokens.embed(residual, this.loaded.embedding);
      this.#finishEmbedding(residual, start);
      for (let layer = 0; layer < this.#blocks.length; layer++)
        await this.#block(layer, residual, cache, start, options);

      const { logits = "last" } = options;
      if (logits === "none") return undefined;
      return this.head(logits === "all" ? residual : residual.rowRange(n - 1, 1));
    });
  }

  embed(tokens: Uint32Array, start = 0): Activation {
    this.#checkTokens(tokens);
    const x = this.backend.allocate(tokens.length, this.config.hiddenSize);
    this.backend.embed(x, this.loaded.embedding, tokens);
    this.#finishEmbedding(x, start);
    return x;
  }

  /** What comes on top of a row of the table: its scale, the position, a norm. */
  #finishEmbedding(x: Activation, start: number): void {
    const { backend, loaded } = this;
    const { scale, positions, norm } = this.config.spec.embedding;
    if (scale !== undefined) backend.map(x, x, { f: "scale", by: scale });
    if (positions !== undefined) {
      const ids = Uint32Array.from({ length: x.rows }, (_, r) => start + r + positions.offset);
      const { table } = positions;
      if (start + x.rows + positions.offset > table.shape[0]) {
        throw new UsageError(
          `position ${start + x.rows - 1}; the model has learned ${table.shape[0] - positions.offset}`,
        );
      }
      const added = backend.allocate(x.rows, x.cols);
      backend.embed(added, loaded.positions!, ids);
      backend.add(x, added);
      backend.release(added);
    }
    if (norm !== undefined) applyNorm(backend, x, x, norm, loaded.embeddingNorm!);
  }

  block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions = {}): Promise<void> {
    return this.#turns.run(() => this.#block(layer, x, cache, start, options));
  }

  async #block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions): Promise<void> {
    const { thresholds = this.#thresholds } = options;
    const pass: Pass = {
      backend: this.backend,
      layer,
      x,
      buffers: this.#buffers.forRows(x.rows, layer),
      buffersFor: (rows) => this.#buffers.forRows(rows, layer),
      keys: cache instanceof BlockCaches ? cache.of(layer) : { cache, layer },
      start,
      table: (step) => this.#ropeTable(step, cache.spec.capacity),
      thresholds: thresholds === undefined || thresholds === "dense" ? undefined : this.#arrange(thresholds)[layer],
      sparseFromRow: Math.max(0, (options.sparseFrom ?? 0) - start),
      tap: options.tap,
    };
    for (const operation of this.#blocks[layer]) {
      const waiting = operation(pass);
      if (waiting !== undefined) await waiting;
    }
  }

  head(x: Activation): Activation {
    const { backend, loaded } = this;
    const { finalNorm } = this.config.spec;
    let normed = x;
    if (finalNorm !== undefined) {
      normed = this.#buffers.normed(x.rows);
      applyNorm(backend, normed, x, finalNorm, loaded.finalNorm!);
    }
    const logits = backend.allocate(x.rows, this.logitCols);
    backend.linear(logits, normed, loaded.head.matrix, { bias: loaded.head.bias });
    const { head } = this.config.spec;
    if (head.kind === "vocabulary" && head.softcap !== undefined) {
      backend.map(logits, logits, { f: "softcap", by: head.softcap });
    }
    return logits;
  }

  [Symbol.dispose](): void {
    this.#buffers[Symbol.dispose]();
  }

  #arrange(thresholds: ActivationThresholds): readonly BlockThresholds[] {
    let arranged = this.#arranged.get(thresholds);
    if (arranged === undefined) {
      arranged = blockThresholds(thresholds, this.config.spec);
      this.#arranged.set(thresholds, arranged);
    }
    return arranged;
  }

  /** A rotary table, for at least `positions`. It grows with the largest cache, not with what a config claims. */
  #ropeTable({ rope, width }: Pick<RotateStep, "rope" | "width">, positions: number): RopeTable {
    const key = keyOf(rope, width);
    let table = this.#tables.get(key);
    if (table === undefined || table.positions < positions) {
      const { cos, sin } = ropeTables(rope, width, 2 ** Math.ceil(Math.log2(positions)));
      table = this.backend.loadRope(cos, sin, width);
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

const keys = new WeakMap<RopeSpec, string>();

/** Blocks describe equal embeddings each for itself. */
function keyOf(rope: RopeSpec, width: number): string {
  let key = keys.get(rope);
  if (key === undefined) {
    key = JSON.stringify(rope);
    keys.set(rope, key);
  }
  return `${width} ${key}`;
}
