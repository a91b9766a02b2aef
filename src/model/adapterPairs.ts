import type { Step } from "../arch/index.js";
import type { Activation, Backend, Matrix, Region, Vector } from "../kernels/index.js";
import type { ExpertGates } from "./expertGates.js";
import type { FactorMixture } from "./factorMixture.js";
import type { LoadedAdapter, Model, SequencePart } from "./types.js";

/** What an adapter adds to the maps of one linear step: left · right of each. */
export interface StackPairs {
  /** Where the outputs of each pair go; left [rows, rank]; where its rank begins in the product of all right matrices. */
  readonly pairs: readonly {
    readonly rowStart: number;
    readonly rows: number;
    readonly left: Matrix;
    readonly rankStart: number;
  }[];
  /** [Σ ranks, cols] */
  readonly right: Matrix;
  /** What weighs the pairs of a mixture, whose ranks lie side by side. */
  readonly routing?: PairRouting;
}

/** The routers of all maps of a step, and how a gate comes to the columns of its expert. */
export interface PairRouting {
  readonly gates: ExpertGates;
  /** [maps · gate width, cols] with its bias. */
  readonly router: Matrix;
  readonly bias: Vector;
  /** 0 and 1: [ranks of a map, gate width] */
  readonly spread: Matrix;
}

/** What an adapter does to one linear step. */
export interface StepAdaptation {
  readonly pairs?: StackPairs;
  readonly inputs?: FactorMixture;
  readonly outputs: readonly FactorMixture[];
}

/** An adapter in memory, by block and step. */
export class PlacedAdapter implements LoadedAdapter {
  /** @param blocks of `model` */
  constructor(
    readonly model: Model,
    readonly region: Region,
    readonly blocks: readonly ReadonlyMap<Step, StepAdaptation>[],
    readonly byteLength: number,
  ) {}

  [Symbol.dispose](): void {
    this.region[Symbol.dispose]();
  }
}

/** Columns of the working memory of `addPairs`. */
export const pairScratch = ({ right, routing }: StackPairs): number =>
  right.rows + (routing === undefined ? 0 : 2 * routing.router.rows + routing.spread.rows);

/** out += what an adapter makes of x. @param work [rows of x, `pairScratch`] @param x whole: it was learnt of whole inputs */
export function addPairs(
  backend: Backend,
  out: Activation,
  x: Activation,
  { right, pairs, routing }: StackPairs,
  work: Activation,
): void {
  const between = work.columns(0, right.rows);
  backend.linear(between, x, right);
  if (routing !== undefined) weighPairs(backend, between, x, routing, work.columns(right.rows, work.cols - right.rows));
  for (const { rowStart, rows, left, rankStart } of pairs) {
    backend.linear(out.columns(rowStart, rows), between.columns(rankStart, left.cols), left, { accumulate: true });
  }
}

/** What lies between the halves of all pairs, times the gate of each: at least 0, so that it is its own ReLU. */
function weighPairs(
  backend: Backend,
  between: Activation,
  x: Activation,
  { gates, router, bias, spread }: PairRouting,
  work: Activation,
): void {
  const [logits, other] = [work.columns(0, router.rows), work.columns(router.rows, router.rows)];
  backend.linear(logits, x, router, { bias });
  const weights = gates.weigh(logits, other);
  const wide = work.columns(2 * router.rows, spread.rows);
  for (let map = 0; map * spread.rows < between.cols; map++) {
    const own = between.columns(map * spread.rows, spread.rows);
    backend.linear(wide, weights.columns(map * gates.width, gates.width), spread);
    backend.gatedActivation(own, wide, own, "relu");
  }
}

/** Rows that follow one another and have an adapter. */
export interface AdaptedRows {
  readonly firstRow: number;
  readonly rows: number;
  readonly adapter: PlacedAdapter;
}

/** Rows by adapter, neighbours with the same one together; a row with several is there once for each, in their order. */
export function adaptedRows(
  parts: readonly (Pick<SequencePart, "adapters"> & { rows: number })[],
): readonly AdaptedRows[] {
  const found: { firstRow: number; rows: number; adapter: PlacedAdapter }[] = [];
  let firstRow = 0;
  for (const { rows, adapters = [] } of parts) {
    let last = -1;
    for (const adapter of adapters as readonly PlacedAdapter[]) {
      const at = found.findLastIndex((one) => one.adapter === adapter);
      const before = found[at];
      if (at > last && before.firstRow + before.rows === firstRow) {
        before.rows += rows;
        last = at;
      } else last = found.push({ firstRow, rows, adapter }) - 1;
    }
    firstRow += rows;
  }
  return found;
}
