import type { BlockShape, ModelConfig } from "../io/index.js";
import type { Activation, Backend } from "../kernels/index.js";

/** Working memory of one block's pass over n tokens. */
export interface Scratch {
  /** [n, hiddenSize], the residual stream */
  residual: Activation;
  /** [n, hiddenSize], the input of a projection after its norm */
  normed: Activation;
  /** [n, (queryHeads + 2 * kvHeads) * headDim] and its parts */
  qkv: Activation;
  /** [n, queryHeads * headDim] */
  q: Activation;
  /** [n, kvHeads * headDim] */
  k: Activation;
  /** [n, kvHeads * headDim] */
  v: Activation;
  /** [n, (queryHeads + kvHeads) * headDim]: q and k side by side, rotated at once */
  qk: Activation;
  /** [n, queryHeads * headDim], what attention gives */
  attended: Activation;
  /** [n, 2 * intermediateSize] and its halves */
  gateUp: Activation;
  /** [n, intermediateSize] */
  gate: Activation;
  /** [n, intermediateSize] */
  up: Activation;
  /** [n, the largest sum of ranks in a stack]: what lies between the two matrices of low rank; undefined without any. */
  lowRank: Activation | undefined;
}

/**
 * Hands out working memory for any number of rows. It is allocated for the largest number asked for so far and for the
 * widest block; smaller passes and narrower blocks use its first rows and columns through views that are made once, so
 * that decoding allocates nothing.
 */
export class ScratchPool implements Disposable {
  #rows = 0;
  #owned: Activation[] = [];
  #views = new Map<string, Scratch>();

  /** @param lowRank columns of `Scratch.lowRank`; 0 for none */
  constructor(
    readonly backend: Backend,
    readonly config: ModelConfig,
    readonly lowRank: number,
  ) {}

  forRows(rows: number, layer = 0): Scratch {
    if (rows > this.#rows) this.#grow(rows);
    const { queryHeads, kvHeads, intermediateSize } = this.config.blocks[layer];
    const key = `${rows} ${queryHeads} ${kvHeads} ${intermediateSize}`;
    let scratch = this.#views.get(key);
    if (scratch === undefined) {
      scratch = this.#view(rows, this.config.blocks[layer]);
      this.#views.set(key, scratch);
    }
    return scratch;
  }

  #grow(rows: number): void {
    this[Symbol.dispose]();
    const { hiddenSize, headDim, blocks } = this.config;
    const widest = (width: (block: BlockShape) => number) => Math.max(...blocks.map(width));
    const widths = [
      hiddenSize,
      hiddenSize,
      widest(({ queryHeads, kvHeads }) => (queryHeads + 2 * kvHeads) * headDim),
      widest(({ queryHeads }) => queryHeads * headDim),
      widest(({ intermediateSize }) => 2 * intermediateSize),
      ...(this.lowRank > 0 ? [this.lowRank] : []),
    ];
    for (const cols of widths) this.#owned.push(this.backend.allocate(rows, cols));
    this.#rows = rows;
  }

  #view(rows: number, { queryHeads, kvHeads, intermediateSize }: BlockShape): Scratch {
    const { headDim } = this.config;
    const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
    const [residual, normed, qkv, attended, gateUp, lowRank] = this.#owned.map((activation) =>
      activation.rowRange(0, rows),
    );
    return {
      residual,
      normed,
      qkv: qkv.columns(0, queryWidth + 2 * kvWidth),
      q: qkv.columns(0, queryWidth),
      k: qkv.columns(queryWidth, kvWidth),
      v: qkv.columns(queryWidth + kvWidth, kvWidth),
      qk: qkv.columns(0, queryWidth + kvWidth),
      attended: attended.columns(0, queryWidth),
      gateUp: gateUp.columns(0, 2 * intermediateSize),
      gate: gateUp.columns(0, intermediateSize),
      up: gateUp.columns(intermediateSize, intermediateSize),
      lowRank,
    };
  }

  [Symbol.dispose](): void {
    for (const activation of this.#owned) this.backend.release(activation);
    this.#owned = [];
    this.#views.clear();
    this.#rows = 0;
  }
}
