import type { BlockShape, ModelConfig } from "../arch/index.js";
import type { Activation, Backend } from "../kernels/index.js";
import { padTo4 } from "./footprint.js";

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
  /** [n, 2 * intermediateSize] and its halves; in a mixture of experts a row for every slot */
  gateUp: Activation;
  gate: Activation;
  up: Activation;
  /** Of a mixture of experts: f32 [n, experts rounded up to 4]. */
  routerLogits: Activation | undefined;
  /** Of a mixture of experts: [slots, hiddenSize], what the experts give. */
  expertOut: Activation | undefined;
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
  /** With a row for every row of the pass, and with one for every expert that a row is sent to; undefined where not needed. */
  #ofRows: (Activation | undefined)[] = [];
  #ofSlots: (Activation | undefined)[] = [];
  readonly #slotsOfRow: number;
  #views = new Map<string, Scratch>();

  /** @param lowRank columns of `Scratch.lowRank`; 0 for none */
  constructor(
    readonly backend: Backend,
    readonly config: ModelConfig,
    readonly lowRank: number,
  ) {
    this.#slotsOfRow = config.experts?.perToken ?? 1;
  }

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
    const { hiddenSize, headDim, blocks, experts } = this.config;
    const widest = (width: (block: BlockShape) => number) => Math.max(...blocks.map(width));
    const ofRows = [
      hiddenSize,
      hiddenSize,
      widest(({ queryHeads, kvHeads }) => (queryHeads + 2 * kvHeads) * headDim),
      widest(({ queryHeads }) => queryHeads * headDim),
      this.lowRank,
      padTo4(experts?.count ?? 0),
    ];
    const ofSlots = [widest(({ intermediateSize }) => 2 * intermediateSize), experts === undefined ? 0 : hiddenSize];
    const allocate = (count: number) => (cols: number) => (cols > 0 ? this.backend.allocate(count, cols) : undefined);
    this.#ofRows = ofRows.map(allocate(rows));
    this.#ofSlots = ofSlots.map(allocate(rows * this.#slotsOfRow));
    this.#rows = rows;
  }

  #view(rows: number, { queryHeads, kvHeads, intermediateSize }: BlockShape): Scratch {
    const { headDim } = this.config;
    const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
    const first = (count: number) => (activation: Activation | undefined) => activation?.rowRange(0, count);
    const [residual, normed, qkv, attended, lowRank, routerLogits] = this.#ofRows.map(first(rows));
    const [gateUp, expertOut] = this.#ofSlots.map(first(rows * this.#slotsOfRow));
    return {
      residual: residual!,
      normed: normed!,
      qkv: qkv!.columns(0, queryWidth + 2 * kvWidth),
      q: qkv!.columns(0, queryWidth),
      k: qkv!.columns(queryWidth, kvWidth),
      v: qkv!.columns(queryWidth + kvWidth, kvWidth),
      qk: qkv!.columns(0, queryWidth + kvWidth),
      attended: attended!.columns(0, queryWidth),
      gateUp: gateUp!.columns(0, 2 * intermediateSize),
      gate: gateUp!.columns(0, intermediateSize),
      up: gateUp!.columns(intermediateSize, intermediateSize),
      lowRank,
      routerLogits,
      expertOut,
    };
  }

  [Symbol.dispose](): void {
    for (const activation of [...this.#ofRows, ...this.#ofSlots]) {
      if (activation !== undefined) this.backend.release(activation);
    }
    this.#ofRows = [];
    this.#ofSlots = [];
    this.#views.clear();
    this.#rows = 0;
  }
}
