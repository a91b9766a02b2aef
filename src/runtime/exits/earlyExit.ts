import { UsageError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { ForwardOptions, Model } from "../../model/index.js";
import type { SequenceMemory } from "../kv/memory.js";
import { exitFeatures } from "./features.js";
import type { Exits } from "./index.js";
import type { ExitDecider } from "./rule.js";

/** What early exit did with the tokens of a sequence, prompts left out. */
export interface ExitCounts {
  /** Tokens that might leave early. */
  tokens: number;
  /** Layers behind which they left, added up. */
  exitLayers: number;
  /** Layers that were run for them, added up: also those that were run later because another token needed what they keep. */
  layersRun: number;
  /** How often the head was asked whether a token may leave. */
  probes: number;
}

/** Most tokens that have left and whose deeper layers are still to be run. */
const mostPending = 32;

const copy = { f: "scale", by: 1 } as const;

/**
 * Runs the tokens of one sequence through as many layers as they need (AdaInfer, arXiv 2403.02181). Attention of a later token
 * wants keys and values in every layer that it reaches. With `exact` those who left go on from their own states, together
 * with the token that needs them: what a token finds is what the whole model leaves. With `propagate` the state at the exit gives the keys and values of all deeper layers at once.
 */
export class EarlyExit implements Disposable {
  readonly counts: ExitCounts = { tokens: 0, exitLayers: 0, layersRun: 0, probes: 0 };
  readonly #probed: ReadonlySet<number>;
  readonly #begin: () => ExitDecider;
  /** Residual streams [rows, hiddenSize] of the newest tokens, the last of which runs or has left. */
  readonly #stream: Activation;
  /** Of each of those: its position, and layers that were run. Whoever came earlier has run at least as many. */
  #rows: { readonly at: number; layers: number }[] = [];

  /** @throws UsageError for a cache that throws tokens away which have not run everywhere, and where a rule does not fit */
  constructor(
    readonly model: Model,
    readonly memory: SequenceMemory,
    readonly exits: Exits,
    /** What its passes run with. */
    readonly own: Pick<ForwardOptions, "thresholds" | "adapters">,
  ) {
    if (exits.fill === "exact" && !memory.keepsAll) {
      throw new UsageError(
        `${exits.text} leaves deeper layers for later, and the KV policy throws tokens away before that; take fill=propagate, ` +
          "or a policy that keeps all, as int8",
      );
    }
    const { layers, hiddenSize } = model.config;
    this.#probed = new Set(exits.probed(layers));
    this.#begin = exits.open(layers);
    const rows = exits.fill === "exact" ? Math.min(mostPending, memory.mostRows) : 1;
    this.#stream = model.backend.allocate(rows, hiddenSize);
  }

  /**
   * Runs one token as far as it goes.
   * @param at tokens before it
   * @returns logits f32 [1, logitCols] behind the layer at which it left, owned by the caller
   */
  async run(token: Uint32Array, at: number): Promise<Activation> {
    const { model, counts } = this;
    const { layers } = model.config;
    this.rewind(at);
    if (this.#rows.length === this.#stream.rows) await this.complete();
    const newest = { at, layers: 0 };
    const row = this.#stream.rowRange(this.#rows.length, 1);
    this.#embed(row, token, at);
    this.#rows.push(newest);
    const mayLeave = this.#begin();
    counts.tokens++;
    while (newest.layers < layers) {
      await this.#runNext(newest.layers);
      if (!this.#probed.has(newest.layers)) continue;
      counts.probes++;
      const logits = model.head(row);
      if (mayLeave(newest.layers, await this.#features(logits))) {
        counts.exitLayers += newest.layers;
        if (this.exits.fill === "propagate") await this.#storeKeys(newest);
        return logits;
      }
      model.backend.release(logits);
    }
    counts.exitLayers += layers;
    const logits = model.head(row);
    this.#rows = [];
    return logits;
  }

  /** Runs what was left for later. Whatever runs all layers of a token needs that before it. */
  async complete(): Promise<void> {
    for (let layer = this.#least(); layer < this.model.config.layers; layer++) await this.#runNext(layer);
    this.#rows = [];
  }

  /** Forgets the tokens from position `length` on. */
  rewind(length: number): void {
    this.#rows = this.#rows.filter(({ at }) => at < length);
  }

  #least(): number {
    return this.#rows.at(-1)?.layers ?? this.model.config.layers;
  }

  #embed(row: Activation, token: Uint32Array, at: number): void {
    const { backend } = this.model;
    const { start } = this.memory.next(at, 1, {}, "decode");
    const embedded = this.model.embed(token, start);
    backend.map(row, embedded, copy);
    backend.release(embedded);
  }

  /** Runs a layer on all tokens that have not run it, as one pass: they follow one another. */
  async #runNext(layer: number, keysOnly = false): Promise<void> {
    const first = this.#rows.findIndex(({ layers }) => layers <= layer);
    const waiting = this.#rows.slice(first);
    const { start, options } = this.memory.next(waiting[0].at, waiting.length, this.own, "decode");
    const x = this.#stream.rowRange(first, waiting.length);
    await this.model.block(layer, x, this.memory.cache, start, { ...options, keysOnly });
    for (const row of waiting) row.layers = layer + 1;
    if (!keysOnly) this.counts.layersRun += waiting.length;
  }

  async #storeKeys(row: { layers: number }): Promise<void> {
    while (row.layers < this.model.config.layers) await this.#runNext(row.layers, true);
    this.#rows = [];
  }

  async #features(logits: Activation) {
    return exitFeatures((await this.model.backend.read(logits)).subarray(0, this.model.config.vocabSize));
  }

  [Symbol.dispose](): void {
    this.model.backend.release(this.#stream);
  }
}
