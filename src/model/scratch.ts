import type { ModelConfig } from "../io/index.js";
import type { Activation, Backend } from "../kernels/index.js";

/** Working memory of one forward pass over n tokens. */
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
}

/**
 * Hands out working memory for any number of rows. It is allocated for the largest number asked for so far; smaller
 * passes use its first rows through views that are made once, so that decoding allocates nothing.
 */
export class ScratchPool implements Disposable {
  #rows = 0;
  #owned: Activation[] = [];
  #views = new Map<number, Scratch>();

  constructor(
    readonly backend: Backend,
    readonly config: ModelConfig,
  ) {}

  forRows(rows: number): Scratch {
    if (rows > this.#rows) this.#grow(rows);
    let scratch = this.#views.get(rows);
    if (scratch === undefined) {
      scratch = this.#view(rows);
      this.#views.set(rows, scratch);
    }
    return scratch;
  }

  #grow(rows: number): void {
    this[Symbol.dispose]();
    const { hiddenSize, intermediateSize, queryHeads, kvHeads, headDim } = this.config;
    const widths = [
      hiddenSize,
      hiddenSize,
      (queryHeads + 2 * kvHeads) * headDim,
      queryHeads * headDim,
      2 * intermediateSize,
    ];
    for (const cols of widths) this.#owned.push(this.backend.allocate(rows, cols));
    this.#rows = rows;
  }

  #view(rows: number): Scratch {
    const { intermediateSize, queryHeads, kvHeads, headDim } = this.config;
    const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
    const [residual, normed, qkv, attended, gateUp] = this.#owned.map((activation) => activation.rowRange(0, rows));
    return {
      residual,
      normed,
      qkv,
      q: qkv.columns(0, queryWidth),
      k: qkv.columns(queryWidth, kvWidth),
      v: qkv.columns(queryWidth + kvWidth, kvWidth),
      qk: qkv.columns(0, queryWidth + kvWidth),
      attended,
      gateUp,
      gate: gateUp.columns(0, intermediateSize),
      up: gateUp.columns(intermediateSize, intermediateSize),
    };
  }

  [Symbol.dispose](): void {
    for (const activation of this.#owned) this.backend.release(activation);
    this.#owned = [];
    this.#views.clear();
    this.#rows = 0;
  }
}
