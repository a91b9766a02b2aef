import type { Step } from "../arch/index.js";
import type { Activation, Backend, Matrix, Region } from "../kernels/index.js";
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
}

/** The pairs of an adapter, by block and step. */
export class AdapterPairs implements LoadedAdapter {
  /** @param blocks of `model` */
  constructor(
    readonly model: Model,
    readonly region: Region,
    readonly blocks: readonly ReadonlyMap<Step, StackPairs>[],
    readonly byteLength: number,
  ) {}

  [Symbol.dispose](): void {
    this.region[Symbol.dispose]();
  }
}

/** out += what an adapter makes of x. @param between [rows of x, Σ ranks] @param x whole: it was learnt of whole inputs */
export function addPairs(
  backend: Backend,
  out: Activation,
  x: Activation,
  { right, pairs }: StackPairs,
  between: Activation,
): void {
  backend.linear(between, x, right);
  for (const { rowStart, rows, left, rankStart } of pairs) {
    backend.linear(out.columns(rowStart, rows), between.columns(rankStart, left.cols), left, { accumulate: true });
  }
}

/** Rows that follow one another and have an adapter. */
export interface AdaptedRows {
  readonly firstRow: number;
  readonly rows: number;
  readonly adapter: AdapterPairs;
}

/** Rows by adapter, neighbours with the same one together; a row with several is there once for each. */
export function adaptedRows(
  parts: readonly (Pick<SequencePart, "adapters"> & { rows: number })[],
): readonly AdaptedRows[] {
  const found: { firstRow: number; rows: number; adapter: AdapterPairs }[] = [];
  let firstRow = 0;
  for (const { rows, adapters = [] } of parts) {
    for (const adapter of adapters as readonly AdapterPairs[]) {
      const before = found.findLast((one) => one.adapter === adapter);
      if (before !== undefined && before.firstRow + before.rows === firstRow) before.rows += rows;
      else found.push({ firstRow, rows, adapter });
    }
    firstRow += rows;
  }
  return found;
}
