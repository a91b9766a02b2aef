import { type ModelConfig, ropeTables } from "../arch/index.js";
import { type FormatError, UsageError } from "../core/index.js";
import type { Activation, Backend, Chosen, KvCache, RopeTable } from "../kernels/index.js";
import type { WeightFormatId } from "../pack/index.js";
import { BlockCaches } from "./blockCaches.js";
import { addMixture } from "./experts.js";
import { padTo4 } from "./footprint.js";
import { type Scratch, ScratchPool } from "./scratch.js";
import { linearStack } from "./stack.js";
import type { MatrixChoice } from "./structure.js";
import { type LayerThresholds, layerThresholds } from "./thresholds.js";
import { Turns } from "./turns.js";
import type { ActivationThresholds, ForwardOptions, Model, TappedSlots, TapSite } from "./types.js";
import type { DecoderWeights, ExpertWeights } from "./weights.js";

/** Llama and its relatives: pre-norm blocks of grouped-query attention and a gated MLP. */
export class Decoder implements Model {
  readonly weightBytes: { perToken: number; loaded: number };
  readonly logitCols: number;
  readonly #scratch: ScratchPool;
  /** Passes share the scratch: those of different sequences take turns. */
  readonly #turns = new Turns();
  readonly #attentionScale: number;
  #rope: RopeTable | undefined;
  #thresholds: ActivationThresholds | undefined;
  #layerThresholds: readonly LayerThresholds[] | undefined;

  constructor(
    readonly config: ModelConfig,
    readonly backend: Backend,
    readonly weights: WeightFormatId,
    readonly loaded: DecoderWeights,
  ) {
    this.weightBytes = loaded.bytes;
    this.logitCols = padTo4(config.vocabSize);
    this.#scratch = new ScratchPool(backend, config, loaded.lowRank);
    this.#attentionScale = 1 / Math.sqrt(config.headDim);
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
    this.#layerThresholds = thresholds && layerThresholds(thresholds, this.config);
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
    this.#ropeTable(capacity);
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
      const { residual } = this.#scratch.forRows(n);
      if (known) this.backend.embed(residual, this.loaded.embedding, tokens);
      else tokens.embed(residual, this.loaded.embedding);
      for (let layer = 0; layer < this.config.layers; layer++)
        await this.#block(layer, residual, cache, start, options);

      const { logits = "last" } = options;
      if (logits === "none") return undefined;
      return this.head(logits === "all" ? residual : residual.rowRange(n - 1, 1));
    });
  }

  embed(tokens: Uint32Array): Activation {
    this.#checkTokens(tokens);
    const x = this.backend.allocate(tokens.length, this.config.hiddenSize);
    this.backend.embed(x, this.loaded.embedding, tokens);
    return x;
  }

  block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions = {}): Promise<void> {
    return this.#turns.run(() => this.#block(layer, x, cache, start, options));
  }

  /** x [n, hiddenSize] += attention(norm(x)); x += mlp(norm(x)). Shapes of the scratch are in `Scratch`. */
  async #block(layer: number, x: Activation, cache: KvCache, start: number, options: ForwardOptions): Promise<void> {
    const { config, backend: b } = this;
    const w = this.loaded.blocks[layer];
    const s = this.#scratch.forRows(x.rows, layer);
    const keys = cache instanceof BlockCaches ? cache.of(layer) : { cache, layer };
    const sparse = this.#layerThresholds?.[layer];
    const sparseFromRow = Math.max(0, (options.sparseFrom ?? 0) - start);
    const watch = (site: TapSite, activation: Activation) => this.#watch(options, layer, site, activation);

    // Attention: q, k, v = heads of norm(x)·Wᵀ, rotated; x += attention(q, cache)·Wₒᵀ
    b.rmsNorm(s.normed, x, w.inputNorm, config.rmsNormEpsilon);
    await watch("attentionInput", s.normed);
    linearStack(b, s.qkv, s.normed, w.qkv, s.lowRank, { thresholds: sparse?.qkv, sparseFromRow });
    if (w.headNorms !== undefined) {
      b.rmsNorm(s.q, s.q, w.headNorms.q, config.rmsNormEpsilon);
      b.rmsNorm(s.k, s.k, w.headNorms.k, config.rmsNormEpsilon);
    }
    const table = this.#ropeTable(cache.spec.capacity);
    const attention = {
      queryHeads: config.blocks[layer].queryHeads,
      scale: this.#attentionScale,
      start,
      window: config.slidingWindows[layer],
    };
    if (b.rotatedAttention !== undefined) {
      b.rotatedAttention(s.attended, s, table, keys.cache, keys.layer, attention);
    } else {
      b.rope(s.qk, table, start);
      b.appendKv(keys.cache, keys.layer, s.k, s.v, start);
      b.attention(s.attended, s.q, keys.cache, keys.layer, attention);
    }
    await watch("attentionOutput", s.attended);
    linearStack(b, x, s.attended, w.output, s.lowRank, { thresholds: sparse?.output, sparseFromRow, accumulate: true });

    // MLP: x += (f(norm(x)·Wgᵀ) ⊙ norm(x)·Wuᵀ)·Wdᵀ; the hidden values take the place of the gate.
    b.rmsNorm(s.normed, x, w.mlpNorm, config.rmsNormEpsilon);
    if ("router" in w) {
      await this.#mixture(layer, x, s.normed, w, sparseFromRow, options);
      return;
    }
    await watch("mlpInput", s.normed);
    linearStack(b, s.gateUp, s.normed, w.gateUp, s.lowRank, { thresholds: sparse?.gateUp, sparseFromRow });
    const down = { thresholds: sparse?.down, sparseFromRow, accumulate: true };
    // What is watched must exist, so that only a backend alone with its values leaves the hidden ones out.
    if (b.fusesGates && x.rows === 1 && options.tap === undefined && "matrix" in w.down) {
      const gateThreshold = sparseFromRow === 0 ? sparse?.gate : undefined;
      const gate = { up: s.up, f: config.activation, gateThreshold };
      linearStack(b, x, s.gate, w.down, s.lowRank, { ...down, gate });
      return;
    }
    await watch("mlpGate", s.gate);
    this.#gate(s, x.rows, sparse?.gate, sparseFromRow);
    await watch("mlpHidden", s.gate);
    linearStack(b, x, s.gate, w.down, s.lowRank, down);
  }

  /** Rows before `sparseFromRow` and those from it on, each by themselves: a routing mixes up its rows. */
  async #mixture(
    layer: number,
    x: Activation,
    normed: Activation,
    w: ExpertWeights,
    sparseFromRow: number,
    options: ForwardOptions,
  ): Promise<void> {
    const sparse = this.#layerThresholds?.[layer];
    const dense = sparse === undefined ? x.rows : Math.min(sparseFromRow, x.rows);
    const pass = async (start: number, count: number, thresholds?: LayerThresholds): Promise<void> => {
      if (count === 0) return;
      const scratch = this.#scratch.forRows(count, layer);
      await addMixture(this.backend, x.rowRange(start, count), normed.rowRange(start, count), w, scratch, {
        activation: this.config.activation,
        thresholds,
        watch: (site, activation, slots) =>
          this.#watch(options, layer, site, activation, async () => ({ ...(await slots()), firstRow: start })),
      });
    };
    await pass(0, dense);
    await pass(dense, x.rows - dense, sparse);
  }

  head(x: Activation): Activation {
    const { normed } = this.#scratch.forRows(x.rows);
    const { finalNorm, head } = this.loaded;
    this.backend.rmsNorm(normed, x, finalNorm, this.config.rmsNormEpsilon);
    const logits = this.backend.allocate(x.rows, this.logitCols);
    this.backend.linear(logits, normed, head.matrix, { bias: head.bias });
    return logits;
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]();
  }

  /** gate = f(gate) ⊙ up, with the CATS threshold only on the rows from `denseRows` on. */
  #gate(s: Scratch, rows: number, gateThreshold: number | undefined, denseRows: number): void {
    const { backend: b, config } = this;
    if (gateThreshold === undefined || denseRows === 0 || denseRows >= rows) {
      b.gatedActivation(s.gate, s.gate, s.up, config.activation, denseRows === 0 ? { gateThreshold } : {});
      return;
    }
    const [denseGate, denseUp] = [s.gate.rowRange(0, denseRows), s.up.rowRange(0, denseRows)];
    const [gate, up] = [s.gate, s.up].map((a) => a.rowRange(denseRows, rows - denseRows));
    b.gatedActivation(denseGate, denseGate, denseUp, config.activation);
    b.gatedActivation(gate, gate, up, config.activation, { gateThreshold });
  }

  async #watch(
    { tap }: ForwardOptions,
    layer: number,
    site: TapSite,
    activation: Activation,
    slots?: () => Promise<TappedSlots>,
  ): Promise<void> {
    if (tap?.sites.includes(site)) await tap.onActivation(layer, site, activation, await slots?.());
  }

  /** The rotary table, for at least `positions`. It grows with the largest cache, not with what a config claims. */
  #ropeTable(positions: number): RopeTable {
    if (this.#rope === undefined || this.#rope.positions < positions) {
      const { rope, headDim } = this.config;
      const { cos, sin } = ropeTables(rope, headDim, 2 ** Math.ceil(Math.log2(positions)));
      this.#rope = this.backend.loadRope(cos, sin, headDim);
    }
    return this.#rope;
  }

  #checkTokens(tokens: Uint32Array): void {
    if (tokens.length === 0) throw new UsageError("no tokens to run");
    for (const id of tokens) {
      if (id >= this.config.vocabSize) throw new UsageError(`token ${id} in a vocabulary of ${this.config.vocabSize}`);
    }
  }
}
