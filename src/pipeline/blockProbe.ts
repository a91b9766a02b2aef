import { blockOutputError } from "../compress/index.js";
import type { ActivationSparsity } from "../io/index.js";
import type { KvCache } from "../kernels/index.js";
import type { ActivationThresholds, Model } from "../model/index.js";

interface Sequence {
  cache: KvCache;
  /** f32 [tail, hiddenSize]: inputs of the part that is sparse. */
  tail: Float32Array;
  /** f32 [judged, hiddenSize]: dense outputs of the part that is judged. */
  reference: Float32Array;
}

/** Which rows of a sequence are dense, and how many of the last ones are judged. */
export interface ProbeRows {
  tokens: number;
  dense: number;
  judged: number;
}

/**
 * As the published TEAL code does: the second half of each sequence is sparse and the last quarter is judged, so that what
 * is judged attends to sparse and dense positions as in decoding. Where prompts will be sparse from a position on, from
 * there, and all of it is judged.
 */
export function probeRows(tokens: number, prefill: ActivationSparsity["prefill"]): ProbeRows {
  if (typeof prefill !== "object") {
    return { tokens, dense: tokens - Math.floor(tokens / 2), judged: Math.floor(tokens / 4) };
  }
  const dense = Math.min(prefill.denseFirst, tokens - 1);
  return { tokens, dense, judged: tokens - dense };
}

/**
 * Measures what thresholds do to the output of one block, on saved inputs of the dense model. The dense rows are the same
 * every time, so they run once and only their keys and values stay.
 */
export class BlockProbe implements Disposable {
  readonly #model: Model;
  readonly #layer: number;
  readonly #rows: ProbeRows;
  readonly #sequences: Sequence[] = [];

  private constructor(model: Model, layer: number, rows: ProbeRows) {
    this.#model = model;
    this.#layer = layer;
    this.#rows = rows;
  }

  /** @param inputs f32 [rows.tokens, hiddenSize] each: what enters the block, one array per sequence */
  static async create(model: Model, layer: number, inputs: readonly Float32Array[], rows: ProbeRows) {
    const probe = new BlockProbe(model, layer, rows);
    try {
      for (const input of inputs) await probe.#prepare(input);
      return probe;
    } catch (error) {
      probe[Symbol.dispose]();
      throw error;
    }
  }

  /** Rows that one call of `error` runs through the block. */
  static rowsPerCall(sequences: number, { tokens, dense }: ProbeRows): number {
    return sequences * (tokens - dense);
  }

  /** Mean over the sequences of the block's output error under these thresholds, by the roles of its maps. */
  async error(thresholds: Readonly<Record<string, number>>): Promise<number> {
    const maps = Array.from({ length: this.#model.config.layers }, () => thresholds);
    let sum = 0;
    for (const sequence of this.#sequences) {
      const output = await this.#runTail(sequence, { maps });
      sum += blockOutputError(output, sequence.reference, this.#model.config.hiddenSize);
    }
    return sum / this.#sequences.length;
  }

  [Symbol.dispose](): void {
    for (const { cache } of this.#sequences) cache[Symbol.dispose]();
  }

  async #prepare(input: Float32Array): Promise<void> {
    const { hiddenSize } = this.#model.config;
    const { tokens, dense } = this.#rows;
    const sequence: Sequence = {
      cache: this.#model.createCache(tokens),
      tail: input.slice(dense * hiddenSize),
      reference: new Float32Array(0),
    };
    this.#sequences.push(sequence);
    if (dense > 0) await this.#run(sequence.cache, 0, input.subarray(0, dense * hiddenSize), "dense", 0);
    sequence.reference = await this.#runTail(sequence, "dense");
  }

  #runTail({ cache, tail }: Sequence, thresholds: ActivationThresholds | "dense"): Promise<Float32Array> {
    return this.#run(cache, this.#rows.dense, tail, thresholds, this.#rows.judged);
  }

  /** The block's outputs for the last rows of `input`, f32 [judged, hiddenSize]. */
  async #run(
    cache: KvCache,
    start: number,
    input: Float32Array,
    thresholds: ActivationThresholds | "dense",
    judged: number,
  ): Promise<Float32Array> {
    const { backend, config } = this.#model;
    const rows = input.length / config.hiddenSize;
    const x = backend.allocate(rows, config.hiddenSize);
    try {
      backend.write(x, input);
      await this.#model.block(this.#layer, x, cache, start, { thresholds });
      return judged === 0 ? new Float32Array(0) : await backend.read(x.rowRange(rows - judged, judged));
    } finally {
      backend.release(x);
    }
  }
}
