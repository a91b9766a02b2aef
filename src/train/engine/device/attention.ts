import type { DeviceMemory } from "../../../kernels/internal.js";
import type { Operations, Rows } from "./operations.js";
import type { Factor } from "./products.js";
import { causalSoftmax, causalSoftmaxBackward, paddedSoftmax, softmaxBackward, wholeSoftmax } from "./rowKernels.js";

/** Heads of queries, and those of keys and values, of which each serves as many heads of queries; columns of one. */
export interface Heads {
  heads: number;
  keyHeads: number;
  key: number;
  value: number;
  /** Scores are multiplied by this. */
  scale: number;
}

/** What a position sees: those before it and itself, `window` in all, or the whole text but its filling, token 0. */
export type Sight = { window: number } | { filling: DeviceMemory | undefined };

/** Queries, keys and values of all heads, those of one head side by side. */
export type QueriesKeysValues = readonly [Rows, Rows, Rows];

/**
 * Softmax attention, forward and backward. Attention weights fill `scores` and their gradient `scoresGradient`, for one block at
 * a time: what they were is computed again on the way back.
 */
export class Attention {
  constructor(
    readonly operations: Operations,
    readonly shape: { sequences: number; window: number },
    readonly heads: Heads,
    readonly scores: DeviceMemory,
    readonly scoresGradient: DeviceMemory,
  ) {}

  /** mixed = softmax(scale·q·kᵀ)·v (+ base, which lies as mixed does), the heads side by side. */
  forward(sight: Sight, [q, k, v]: QueriesKeysValues, mixed: Rows, base?: DeviceMemory): void {
    this.#weights(sight, q, k);
    this.operations.products.record({
      ...this.#all,
      layout: "nn",
      columns: this.heads.value,
      depth: this.shape.window,
      a: this.#matrices(this.scores),
      b: this.#rows(v, this.heads.value),
      c: this.#rows(mixed, this.heads.value),
      base,
      causal: causal(sight, "left"),
    });
  }

  /** The gradients of queries, keys and values, from that of `mixed`. */
  back(sight: Sight, [q, k, v]: QueriesKeysValues, mixedGradient: Rows, [dq, dk, dv]: QueriesKeysValues): void {
    const { products } = this.operations;
    const { key, value, scale } = this.heads;
    const { window } = this.shape;
    const outer = this.#rows(mixedGradient, value);
    this.#weights(sight, q, k);
    products.record({
      ...this.#all,
      layout: "nt",
      columns: window,
      depth: value,
      a: outer,
      b: this.#rows(v, value),
      c: this.#matrices(this.scoresGradient),
      causal: causal(sight, "result"),
    });
    this.#overQueries(sight, this.scores, outer, this.#rows(dv, value), value, 1);
    this.#softmaxBackward(sight);
    this.#overQueries(sight, this.scoresGradient, this.#rows(q, key), this.#rows(dk, key), key, scale);
    products.record({
      ...this.#all,
      layout: "nn",
      columns: key,
      depth: window,
      a: this.#matrices(this.scoresGradient),
      b: this.#rows(k, key),
      c: this.#rows(dq, key),
      alpha: scale,
      causal: causal(sight, "left"),
    });
  }

  /** Σ over the query heads of a key head of (matrix of positions)ᵀ · (rows of queries). */
  #overQueries(
    sight: Sight,
    matrix: DeviceMemory,
    rows: HeadRows,
    target: HeadRows,
    columns: number,
    alpha: number,
  ): void {
    const { heads, keyHeads } = this.heads;
    const group = heads / keyHeads;
    const scores = this.#matrices(matrix);
    for (let member = 0; member < group; member++) {
      this.operations.products.record({
        layout: "tn",
        rows: this.shape.window,
        columns,
        depth: this.shape.window,
        a: { ...scores, offset: member * scores.head, head: group * scores.head },
        b: { ...rows, offset: (rows.offset ?? 0) + member * rows.head, head: group * rows.head },
        c: target,
        alpha,
        base: member === 0 ? undefined : target.memory,
        batches: this.shape.sequences,
        heads: keyHeads,
        causal: causal(sight, "leftTransposed"),
      });
    }
  }

  /** softmax(scale·q·kᵀ) of every head into `scores`. */
  #weights(sight: Sight, q: Rows, k: Rows): void {
    const { scores, operations } = this;
    const { heads, key, scale } = this.heads;
    const { window } = this.shape;
    operations.products.record({
      ...this.#all,
      layout: "nt",
      columns: window,
      depth: key,
      a: this.#rows(q, key),
      b: this.#rows(k, key),
      c: this.#matrices(scores),
      alpha: scale,
      causal: causal(sight, "result"),
    });
    const grid = this.#rowsOfScores;
    if ("window" in sight) {
      operations.dispatch(causalSoftmax, { positions: window, window: sight.window }, { scores }, grid);
    } else if (sight.filling !== undefined) {
      operations.dispatch(paddedSoftmax, { positions: window, heads }, { scores, tokens: sight.filling }, grid);
    } else operations.dispatch(wholeSoftmax, { positions: window }, { scores }, grid);
  }

  #softmaxBackward(sight: Sight): void {
    const positions = this.shape.window;
    const buffers = { gradient: this.scoresGradient, weights: this.scores };
    const grid = this.#rowsOfScores;
    if ("window" in sight) {
      this.operations.dispatch(causalSoftmaxBackward, { positions, window: sight.window }, buffers, grid);
    } else this.operations.dispatch(softmaxBackward, { positions }, buffers, grid);
  }

  get #rowsOfScores(): [number, number] {
    return [this.shape.window, this.shape.sequences * this.heads.heads];
  }

  /** A product for every head of queries. */
  get #all() {
    const { heads, keyHeads } = this.heads;
    const { sequences, window } = this.shape;
    return { rows: window, batches: sequences, heads, bGroup: heads / keyHeads };
  }

  /** Heads of `width` columns side by side. */
  #rows(rows: Rows, width: number): HeadRows {
    return { ...rows, batch: this.shape.window * rows.stride, head: width };
  }

  /** A matrix of positions for every head of queries. */
  #matrices(memory: DeviceMemory): HeadRows {
    const { window } = this.shape;
    const size = window * window;
    return { memory, stride: window, batch: this.heads.heads * size, head: size };
  }
}

type HeadRows = Factor & { head: number };

/** The part of a causal matrix that a product has to do with; all of it where every position sees all. */
const causal = <Part extends string>(sight: Sight, part: Part): Part | undefined =>
  "window" in sight ? part : undefined;
