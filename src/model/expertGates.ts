import type { Activation, Backend, KvCache } from "../kernels/index.js";
import { padTo4 } from "./footprint.js";

/** Rows of one call of attention: what behind the experts' slots must be kept from counting. */
const mostRows = 64;

/** A score that leaves nothing of a softmax. */
const never = -1e9;

/**
 * What weighs the experts of an adapter: softmax over runs of `width` columns of logits, of which the first ones are experts. It is attention
 * over as many slots as there are experts, whose keys and values are the unit vectors: every backend has that, and a run of columns is
 * a head. Attention lets row r see r slots more than the first; those have a key that scores `never` with the column behind the
 * experts, which is 1 in all logits (`bias`).
 */
export class ExpertGates implements Disposable {
  readonly #cache: KvCache;
  /** Columns of a run. */
  readonly width: number;

  private constructor(
    readonly backend: Backend,
    readonly experts: number,
    /** So many of each run are left, and the others become 0. */
    readonly topK: number,
  ) {
    this.width = gateWidth(experts);
    const layer = { heads: 1, key: this.width, value: this.width };
    this.#cache = backend.createKvCache({ layers: [layer], slots: experts + mostRows - 1 });
  }

  static load(backend: Backend, experts: number, topK = experts): ExpertGates {
    const gates = new ExpertGates(backend, experts, Math.min(topK, experts));
    const { width } = gates;
    const { slots } = gates.#cache.spec;
    const keys = new Float32Array(slots * width);
    const values = new Float32Array(slots * width);
    for (let slot = 0; slot < slots; slot++) {
      if (slot < experts) keys[slot * width + slot] = values[slot * width + slot] = 1;
      else keys[slot * width + experts] = never;
    }
    const [k, v] = [keys, values].map((array) => {
      const written = backend.allocate(slots, width);
      backend.write(written, array);
      return written;
    });
    backend.appendKv(gates.#cache, 0, k, v, 0);
    for (const written of [k, v]) backend.release(written);
    return gates;
  }

  get byteLength(): number {
    return this.#cache.byteLength;
  }

  /** f32 [runs · width]: what is added to logits. */
  bias(runs: number): Float32Array {
    const bias = new Float32Array(runs * this.width);
    for (let run = 0; run < runs; run++) bias[run * this.width + this.experts] = 1;
    return bias;
  }

  /**
   * Logits become gates.
   * @param logits [rows, runs · width], with `bias`; not kept
   * @param other as large as the logits
   * @returns one of both: for every run a gate of every expert, and zeros
   */
  weigh(logits: Activation, other: Activation): Activation {
    const { backend, width, topK, experts } = this;
    const options = { queryHeads: logits.cols / width, scale: 1, start: experts - 1 };
    for (let row = 0; row < logits.rows; row += mostRows) {
      const of = (whole: Activation) => whole.rowRange(row, Math.min(mostRows, whole.rows - row));
      backend.attention(of(other), of(logits), this.#cache, 0, options);
    }
    if (topK === experts) return other;
    backend.keepLargest(logits, other, { count: topK, of: width });
    return logits;
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }
}

/** Columns of the logits of so many experts: one more than they are, in fours. */
export const gateWidth = (experts: number): number => padTo4(experts + 1);
