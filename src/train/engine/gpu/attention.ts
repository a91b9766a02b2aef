import type { GpuMemory } from "../../../kernels/index.js";
import type { Operations } from "./operations.js";
import { causalSoftmax, causalSoftmaxBackward, paddedSoftmax, softmaxBackward } from "./rowKernels.js";

/** How the heads of a block lie in its rows: queries, keys and values side by side. */
export interface HeadLayout {
  queryHeads: number;
  kvHeads: number;
}

/** What a position sees: those before it and itself, `window` in all, or the whole text but its filling. */
export type Sight = { window: number } | { tokens: GpuMemory };

export interface AttentionShape {
  sequences: number;
  positions: number;
  headDim: number;
}

/**
 * Softmax attention, forward and backward. Attention weights fill `scores` and their gradient `scoresGradient`, for one block at
 * a time: what they were is computed again on the way back.
 */
export class Attention {
  constructor(
    readonly operations: Operations,
    readonly shape: AttentionShape,
    readonly scores: GpuMemory,
    readonly scoresGradient: GpuMemory,
  ) {}

  /** mixed = softmax(q·kᵀ/√headDim)·v (+ base), the heads side by side. */
  forward(layout: HeadLayout, sight: Sight, qkv: GpuMemory, mixed: GpuMemory, base?: GpuMemory): void {
    const { positions, headDim } = this.shape;
    this.#weights(layout, sight, qkv);
    const { heads, value, scores, outer } = this.#factors(layout);
    this.operations.products.record({
      ...heads,
      layout: "nn",
      columns: headDim,
      depth: positions,
      a: { ...scores, memory: this.scores },
      b: { ...value, memory: qkv },
      c: { ...outer, memory: mixed },
      base,
      causal: causal(sight, "left"),
    });
  }

  /** The gradient of queries, keys and values, from that of `mixed`. */
  backward(layout: HeadLayout, sight: Sight, qkv: GpuMemory, mixedGradient: GpuMemory, gradient: GpuMemory): void {
    const { positions, headDim, sequences } = this.shape;
    const { products } = this.operations;
    const { scores: weights, scoresGradient } = this;
    const { heads, query, key, value, scores, outer } = this.#factors(layout);
    const { queryHeads, kvHeads } = layout;
    const scale = 1 / Math.sqrt(headDim);
    this.#weights(layout, sight, qkv);
    products.record({
      ...heads,
      layout: "nt",
      columns: positions,
      depth: headDim,
      a: { ...outer, memory: mixedGradient },
      b: { ...value, memory: qkv },
      c: { ...scores, memory: scoresGradient },
      causal: causal(sight, "result"),
    });
    const group = queryHeads / kvHeads;
    /** Σ over the query heads of a key head of (matrix of positions)ᵀ · (rows of queries). */
    const overQueries = (
      matrix: GpuMemory,
      rows: { memory: GpuMemory; stride: number; batch: number; head: number },
      target: { stride: number; offset: number; batch: number; head: number },
      alpha: number,
    ) => {
      for (let member = 0; member < group; member++) {
        products.record({
          layout: "tn",
          rows: positions,
          columns: headDim,
          depth: positions,
          a: { ...scores, memory: matrix, offset: member * scores.head, head: group * scores.head },
          b: { ...rows, offset: member * rows.head, head: group * rows.head },
          c: { ...target, memory: gradient },
          alpha,
          base: member === 0 ? undefined : gradient,
          batches: sequences,
          heads: kvHeads,
          causal: causal(sight, "leftTransposed"),
        });
      }
    };
    overQueries(weights, { ...outer, memory: mixedGradient }, value, 1);
    this.#softmaxBackward(layout, sight);
    overQueries(scoresGradient, { ...query, memory: qkv }, key, scale);
    products.record({
      ...heads,
      layout: "nn",
      columns: headDim,
      depth: positions,
      a: { ...scores, memory: scoresGradient },
      b: { ...key, memory: qkv },
      c: { ...query, memory: gradient },
      alpha: scale,
      causal: causal(sight, "left"),
    });
  }

  /** softmax(q·kᵀ / √headDim) of every head into `scores`. */
  #weights(layout: HeadLayout, sight: Sight, qkv: GpuMemory): void {
    const { positions, headDim } = this.shape;
    const { heads, query, key, scores } = this.#factors(layout);
    this.operations.products.record({
      ...heads,
      layout: "nt",
      columns: positions,
      depth: headDim,
      a: { ...query, memory: qkv },
      b: { ...key, memory: qkv },
      c: { ...scores, memory: this.scores },
      alpha: 1 / Math.sqrt(headDim),
      causal: causal(sight, "result"),
    });
    const grid = this.#rowsOfScores(layout);
    if ("window" in sight) {
      this.operations.dispatch(causalSoftmax, { positions, window: sight.window }, { scores: this.scores }, grid);
    } else {
      const params = { positions, heads: layout.queryHeads };
      this.operations.dispatch(paddedSoftmax, params, { scores: this.scores, tokens: sight.tokens }, grid);
    }
  }

  #softmaxBackward(layout: HeadLayout, sight: Sight): void {
    const { positions } = this.shape;
    const buffers = { gradient: this.scoresGradient, weights: this.scores };
    const grid = this.#rowsOfScores(layout);
    if ("window" in sight) {
      this.operations.dispatch(causalSoftmaxBackward, { positions, window: sight.window }, buffers, grid);
    } else this.operations.dispatch(softmaxBackward, { positions }, buffers, grid);
  }

  #rowsOfScores({ queryHeads }: HeadLayout): [number, number] {
    return [this.shape.positions, this.shape.sequences * queryHeads];
  }

  /** Where heads lie in the row of queries, keys and values, their matrices of positions, and their outputs side by side. */
  #factors({ queryHeads, kvHeads }: HeadLayout) {
    const { positions, headDim, sequences } = this.shape;
    const stride = (queryHeads + 2 * kvHeads) * headDim;
    const row = { stride, batch: positions * stride, head: headDim };
    const mixed = queryHeads * headDim;
    return {
      heads: { rows: positions, batches: sequences, heads: queryHeads, bGroup: queryHeads / kvHeads },
      query: { ...row, offset: 0 },
      key: { ...row, offset: queryHeads * headDim },
      value: { ...row, offset: (queryHeads + kvHeads) * headDim },
      scores: { stride: positions, batch: queryHeads * positions * positions, head: positions * positions },
      outer: { stride: mixed, batch: positions * mixed, head: headDim },
    };
  }
}

/** The part of a causal matrix that a product has to do with; all of it where every position sees all. */
const causal = <Part extends string>(sight: Sight, part: Part): Part | undefined =>
  "window" in sight ? part : undefined;
