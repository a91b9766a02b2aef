import type { ModelConfig } from "../arch/index.js";
import { type FormatError, UsageError } from "../core/index.js";
import type { Activation, Backend, Chosen, KvCache, Matrix } from "../kernels/index.js";
import { countOf, slotsOf } from "../kernels/internal.js";
import type { WeightFormatId } from "../pack/index.js";
import { Blocks } from "./blocks.js";
import { FactoredTable } from "./factoredTable.js";
import { padTo4 } from "./footprint.js";
import { checkGenerates } from "./generates.js";
import type { OffloadedWeights } from "./offload/offloadedWeights.js";
import { applyNorm } from "./operations.js";
import { linearStack } from "./stack.js";
import type { MatrixChoice } from "./structure.js";
import type {
  ActivationThresholds,
  CacheOptions,
  EntryMoves,
  ForwardOptions,
  GateCounts,
  HeldContext,
  LoadedAdapter,
  Model,
  SequencePart,
  TogetherOptions,
} from "./types.js";
import type { ModelWeights } from "./weights.js";

/** Runs the description of a model: the steps of its blocks, compiled for one backend when it was loaded. */
export class Decoder implements Model {
  readonly weightBytes: { perToken: number; loaded: number };
  readonly logitCols: number;
  readonly takeGateCounts?: () => GateCounts;
  readonly #blocks: Blocks;

  constructor(
    readonly config: ModelConfig,
    readonly backend: Backend,
    readonly weights: WeightFormatId,
    readonly loaded: ModelWeights,
    readonly thresholds: ActivationThresholds | undefined,
    readonly adapters?: readonly LoadedAdapter[],
  ) {
    const { spec } = config;
    this.weightBytes = loaded.bytes;
    const { head } = spec;
    this.logitCols = head.kind === "none" ? 0 : padTo4(head.map.rows);
    const steps = head.kind === "classifier" && loaded.headSteps && { block: head, weights: loaded.headSteps };
    this.#blocks = new Blocks(backend, spec, loaded.region, loaded.blocks, steps || undefined);
    const gates = loaded.blocks.flatMap((block) => block.gates ?? []);
    if (gates.length > 0) this.takeGateCounts = () => gates[0].takeCounts(gates);
  }

  get tokensOnHost(): boolean {
    return this.loaded.embedding instanceof FactoredTable;
  }

  get choices(): readonly MatrixChoice[] {
    return this.loaded.choices;
  }

  get offload(): OffloadedWeights | undefined {
    return this.loaded.offload;
  }

  get damage(): FormatError | undefined {
    return this.loaded.damage;
  }

  createCache(capacity: number, options: CacheOptions = {}): KvCache {
    const { maxPositions } = this.config;
    if (!Number.isSafeInteger(capacity) || capacity < 1) throw new UsageError(`a cache of ${capacity} positions`);
    if (capacity > maxPositions && !options.allowBeyondTraining) {
      throw new UsageError(
        `a cache of ${capacity} positions; the model was made for ${maxPositions} (allowBeyondTraining lifts the limit)`,
      );
    }
    return this.#blocks.createCache(capacity, options);
  }

  forward(
    tokens: Uint32Array | Chosen,
    cache: KvCache,
    start: number,
    options: ForwardOptions = {},
  ): Promise<Activation | undefined> {
    const blocks = this.#blocks;
    return blocks.inTurn(async () => {
      checkGenerates(this);
      const n = tokens.length;
      const known = tokens instanceof Uint32Array;
      if (known) this.#checkTokens(tokens);
      checkPlace(n, cache, start, options);
      const residual = blocks.buffers.residual(n);
      if (known) this.#lookUp(residual, tokens);
      else tokens.embed(residual, this.#table());
      this.#finishEmbedding(residual, [{ start, rows: n }]);
      const { logits = "last" } = options;
      const own = this.#withOwn(options);
      for (let layer = 0; layer < this.config.layers; layer++) {
        await blocks.run(layer, residual, cache, start, own);
      }

      if (logits === "none") return undefined;
      return this.head(logits === "all" ? residual : residual.rowRange(n - 1, 1));
    });
  }

  forwardTogether(
    parts: readonly SequencePart[],
    { thresholds = this.thresholds, sparseFromRow }: TogetherOptions = {},
  ): Promise<Activation | undefined> {
    const blocks = this.#blocks;
    return blocks.inTurn(async () => {
      checkGenerates(this);
      const whole = parts.filter(({ places }) => places === undefined);
      if (new Set(whole.map(({ cache }) => cache)).size < whole.length) {
        throw new UsageError("two parts of a pass have the same cache");
      }
      for (const part of parts) {
        this.#checkTokens(part.tokens);
        checkPlace(part.tokens.length, part.cache, part.start, part);
      }
      const rows = parts.map((part) => ({
        ...part,
        adapters: this.#adaptersOf(part.adapters),
        rows: part.tokens.length,
      }));
      const residual = blocks.buffers.residual(rows.reduce((sum, part) => sum + part.rows, 0));
      const ids = Uint32Array.from(parts.flatMap(({ tokens }) => [...tokens]));
      this.#lookUp(residual, ids);
      this.#finishEmbedding(residual, rows);
      for (let layer = 0; layer < this.config.layers; layer++) {
        await blocks.runTogether(layer, residual, rows, { thresholds, sparseFromRow });
      }
      return this.#headOf(residual, rows);
    });
  }

  /** Logits of the rows that the parts ask for, one behind the other. */
  #headOf(
    residual: Activation,
    parts: readonly { rows: number; logits?: ForwardOptions["logits"] }[],
  ): Activation | undefined {
    const wanted: { first: number; count: number }[] = [];
    let end = 0;
    for (const { rows, logits = "last" } of parts) {
      end += rows;
      const count = { all: rows, last: 1, none: 0 }[logits];
      if (count > 0) wanted.push({ first: end - count, count });
    }
    const count = wanted.reduce((sum, range) => sum + range.count, 0);
    if (count === 0) return undefined;
    const [{ first }] = wanted;
    const last = wanted.at(-1)!;
    if (last.first + last.count - first === count) return this.head(residual.rowRange(first, count));
    const gathered = this.backend.allocate(count, residual.cols);
    let at = 0;
    for (const range of wanted) {
      const into = gathered.rowRange(at, range.count);
      this.backend.map(into, residual.rowRange(range.first, range.count), { f: "scale", by: 1 });
      at += range.count;
    }
    try {
      return this.head(gathered);
    } finally {
      this.backend.release(gathered);
    }
  }

  embed(tokens: Uint32Array, start = 0, types?: Uint32Array): Activation {
    this.#checkTokens(tokens);
    const x = this.backend.allocate(tokens.length, this.config.hiddenSize);
    this.#lookUp(x, tokens);
    this.#finishEmbedding(x, [{ start, rows: x.rows }], types);
    return x;
  }

  #lookUp(out: Activation, tokens: Uint32Array): void {
    const { embedding } = this.loaded;
    if (embedding instanceof FactoredTable) this.backend.write(out, embedding.rowsOf(tokens));
    else this.backend.embed(out, embedding, tokens);
  }

  /** @throws UsageError where rows are made on the host, which must know the tokens */
  #table(): Matrix {
    const { embedding } = this.loaded;
    if (!(embedding instanceof FactoredTable)) return embedding;
    throw new UsageError("an embedding in factors is looked up by the host: read the tokens first");
  }

  /** What comes on top of a row of the table: its scale, the position, a norm. @param parts positions of all the rows */
  #finishEmbedding(
    x: Activation,
    parts: readonly { start: number; rows: number }[],
    typeIds: Uint32Array = new Uint32Array(x.rows),
  ): void {
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
      const at = parts.flatMap(({ start, rows }) => Array.from({ length: rows }, (_, r) => start + r));
      const learned = positions.table.shape[0] - positions.offset;
      const beyond = at.find((position) => position >= learned);
      if (beyond !== undefined) throw new UsageError(`position ${beyond}; the model has learned ${learned}`);
      addRows(
        loaded.positions!,
        Uint32Array.from(at, (position) => position + positions.offset),
      );
    }
    if (types !== undefined) addRows(loaded.types!, typeIds);
    if (norm !== undefined) applyNorm(backend, x, x, norm, loaded.embeddingNorm!);
  }

  block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions = {}): Promise<void> {
    const own = this.#withOwn(options);
    return this.#blocks.inTurn(() => this.#blocks.run(layer, x, cache, start, own));
  }

  /** Options of a pass, the model's own where they say nothing. */
  #withOwn(options: ForwardOptions): ForwardOptions {
    const { thresholds = this.thresholds, adapters } = options;
    return { ...options, thresholds, adapters: this.#adaptersOf(adapters) };
  }

  /** @throws UsageError for those of another model */
  #adaptersOf(adapters = this.adapters): ForwardOptions["adapters"] {
    for (const { model } of adapters ?? []) {
      if (model instanceof Decoder && model.loaded.blocks === this.loaded.blocks) continue;
      throw new UsageError("an adapter that was loaded for another model");
    }
    return adapters;
  }

  moveKv(cache: KvCache, layer: number, moves: EntryMoves): void {
    this.#blocks.moveKv(cache, layer, moves);
  }

  resizeCache(cache: KvCache, slots: readonly number[], held: readonly number[]): KvCache {
    return this.#blocks.resizeCache(cache, slots, held);
  }

  contextOf(cache: KvCache): HeldContext | undefined {
    return this.#blocks.heldOf(cache);
  }

  head(x: Activation): Activation {
    const { backend, loaded } = this;
    const { finalNorm } = this.config.spec;
    let normed = x;
    if (finalNorm !== undefined) {
      normed = this.#blocks.buffers.normed(x.rows);
      applyNorm(backend, normed, x, finalNorm, loaded.finalNorm!);
    }
    const { head } = this.config.spec;
    if (head.kind === "none" || loaded.head === undefined) {
      throw new UsageError(`this ${this.config.modelType} model has no head: embedText takes what it makes of a text`);
    }
    if (head.kind === "classifier") normed = this.#blocks.runHead(normed, head.from);
    const logits = backend.allocate(x.rows, this.logitCols);
    linearStack(backend, logits, normed, loaded.head, undefined);
    if (head.kind === "vocabulary" && head.softcap !== undefined) {
      backend.map(logits, logits, { f: "softcap", by: head.softcap });
    }
    return logits;
  }

  [Symbol.dispose](): void {
    this.loaded.offload?.[Symbol.dispose]();
    this.#blocks[Symbol.dispose]();
  }

  #checkTokens(tokens: Uint32Array): void {
    if (tokens.length === 0) throw new UsageError("no tokens to run");
    for (const id of tokens) {
      if (id >= this.config.vocabSize) throw new UsageError(`token ${id} in a vocabulary of ${this.config.vocabSize}`);
    }
  }
}

/** @throws UsageError for rows that a cache has no place for */
function checkPlace(
  rows: number,
  cache: KvCache,
  start: number,
  { slot = start, places }: Pick<ForwardOptions, "slot" | "places">,
): void {
  if (places !== undefined) {
    const fits = places.every(({ rows, slot }) => rows >= 1 && slot >= 0 && slot + rows <= cache.spec.slots);
    if (fits && places.reduce((sum, run) => sum + run.rows, 0) === rows) return;
    throw new UsageError(`places for other rows than ${rows}, or outside of a cache of ${cache.spec.slots} slots`);
  }
  const { spec } = cache;
  const slots = spec.layers.map((_, layer) => countOf(slot, layer));
  const valid = [start, ...slots].every((first) => Number.isSafeInteger(first) && first >= 0);
  if (valid && slots.every((first, layer) => first + rows <= slotsOf(spec, layer))) return;
  const last = Math.max(...slots);
  const where = last === start ? "" : `slots ${last} … ${last + rows - 1} of `;
  throw new UsageError(`positions ${start} … ${start + rows - 1} in ${where}a cache of ${cache.spec.slots}`);
}
