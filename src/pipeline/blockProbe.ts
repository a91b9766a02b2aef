import { blockOutputError } from "../compress/index.js";
import type { KvCache } from "../kernels/index.js";
import type { ActivationThresholds, Model, Projection } from "../model/index.js";

interface Sequence {
  cache: KvCache;
  /** f32 [tail, hiddenSize]: inputs of the second half. */
  tail: Float32Array;
  /** f32 [judged, hiddenSize]: dense outputs of the last quarter. */
  reference: Float32Array;
}

/**
 * Measures what thresholds do to the output of one block, on saved inputs of the dense model, as the published TEAL code
 * does: the second half of each sequence is sparse and the last quarter is judged, so that what is judged attends to
 * sparse and dense positions as in decoding. The first half is the same dense half every time, so it runs once and only
 * its keys and values stay.
 */
export class BlockProbe implements Disposable {
  readonly #model: Model;
  readonly #layer: number;
  readonly #head: number;
  readonly #sequences: Sequence[] = [];

  private constructor(model: Model, layer: number, tokens: number) {
    this.#model = model;
    this.#layer = layer;
    this.#head = tokens - Math.floor(tokens / 2);
  }

  /** @param inputs f32 [tokens, hiddenSize] each: what enters the block, one array per sequence */
  static async create(model: Model, layer: number, inputs: readonly Float32Array[], tokens: number) {
    const probe = new BlockProbe(model, layer, tokens);
    try {
      for (const input of inputs) await probe.#prepare(input, tokens);
      return probe;
    } catch (error) {
      probe[Symbol.dispose]();
      throw error;
    }
  }

  /** Rows that one call of `error` runs through the block. */
  static rowsPerCall(sequences: number, tokens: number): number {
    return sequences * Math.floor(tokens / 2);
  }

  /** Mean over the sequences of the block's output error under these thresholds. */
  async error(thresholds: Readonly<Record<Projection, number>>): Promise<number> {
    let sum = 0;
    for (const sequence of this.#sequences) {
      const output = await this.#runTail(sequence, this.#forLayer(thresholds));
      sum += blockOutputError(output, sequence.reference, this.#model.config.hiddenSize);
    }
    return sum / this.#sequences.length;
  }

  [Symbol.dispose](): void {
    for (const { cache } of this.#sequences) cache[Symbol.dispose]();
  }

  async #prepare(input: Float32Array, tokens: number): Promise<void> {
    const { backend, config } = this.#model;
    const cut = this.#head * config.hiddenSize;
    const sequence: Sequence = {
      cache: this.#model.createCache(tokens),
      tail: input.slice(cut),
      reference: new Float32Array(0),
    };
    this.#sequences.push(sequence);
    const x = backend.allocate(this.#head, config.hiddenSize);
    try {
      backend.write(x, input.subarray(0, cut));
      this.#model.thresholds = undefined;
      await this.#model.block(this.#layer, x, sequence.cache, 0);
    } finally {
      backend.release(x);
    }
    sequence.reference = await this.#runTail(sequence, undefined);
  }

  /** The block's outputs for the last quarter, f32 [judged, hiddenSize]. */
  async #runTail({ cache, tail }: Sequence, thresholds: ActivationThresholds | undefined): Promise<Float32Array> {
    const { backend, config } = this.#model;
    const rows = tail.length / config.hiddenSize;
    const judged = Math.floor((this.#head + rows) / 4);
    const x = backend.allocate(rows, config.hiddenSize);
    try {
      backend.write(x, tail);
      this.#model.thresholds = thresholds;
      await this.#model.block(this.#layer, x, cache, this.#head);
      return await backend.read(x.rowRange(rows - judged, judged));
    } finally {
      backend.release(x);
    }
  }

  #forLayer(thresholds: Readonly<Record<Projection, number>>): ActivationThresholds {
    return { projections: Array.from({ length: this.#model.config.layers }, () => thresholds) };
  }
}
