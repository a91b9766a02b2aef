import type { Activation, Backend, LinearOptions, Matrix, Vector } from "../kernels/index.js";
import { type Chain, runChain } from "./chain.js";

/** Linear maps that share their input as one matrix: q, k and v; gate and up; or one alone. */
export interface WholeStack {
  readonly matrix: Matrix;
  /** f32 [matrix.rows] */
  readonly bias?: Vector;
}

/** One linear map of a stack in which some are pairs of low rank, W = left · right (+ direct), or other factors. */
export interface StackPart {
  /** First output column of the part, and how many it has. */
  readonly rowStart: number;
  readonly rows: number;
  /** f32 [rows] */
  readonly bias?: Vector;
  /** [rows, cols]: the whole matrix, or what is added to the pair. */
  readonly direct?: Matrix;
  /** left [rows, rank]; where its rank begins in the product of all right matrices. */
  readonly lowRank?: { readonly left: Matrix; readonly rankStart: number };
  /** In place of all that, with its bias. */
  readonly chain?: Chain;
}

export interface SplitStack {
  readonly parts: readonly StackPart[];
  /** [Σ ranks, cols]: the right matrices of all pairs, stacked, with the index of the part of each; undefined without pairs. */
  readonly right: Matrix | undefined;
  readonly rightOf: readonly number[];
}

export type Stack = WholeStack | SplitStack;

/** Columns of what lies between the matrices of pairs; 0 without any. */
export const pairWidth = (stack: Stack): number => ("matrix" in stack ? 0 : (stack.right?.rows ?? 0));

/**
 * out = x·Wᵀ (+ bias) (+ out).
 * @param between [rows of x, at least Σ ranks], what lies between the matrices of low rank; only a split stack needs it
 * @param options thresholds for every part of the stack
 */
export function linearStack(
  backend: Backend,
  out: Activation,
  x: Activation,
  stack: Stack,
  between: Activation | undefined,
  options: Omit<LinearOptions, "bias"> = {},
): void {
  if ("matrix" in stack) {
    backend.linear(out, x, stack.matrix, { ...options, bias: stack.bias });
    return;
  }
  const { thresholds, sparseFromRow, accumulate = false } = options;
  const sparse = (parts: readonly number[]): LinearOptions =>
    thresholds === undefined ? {} : { thresholds: parts.map((part) => thresholds[part]), sparseFromRow };

  const shared = stack.right && between!.columns(0, stack.right.rows);
  if (shared !== undefined) backend.linear(shared, x, stack.right!, sparse(stack.rightOf));
  for (const [p, { rowStart, rows, bias, direct, lowRank, chain }] of stack.parts.entries()) {
    const target = out.columns(rowStart, rows);
    if (chain !== undefined) {
      runChain(backend, target, x, chain, { ...sparse([p]), accumulate });
      continue;
    }
    if (lowRank !== undefined) {
      const { left, rankStart } = lowRank;
      backend.linear(target, shared!.columns(rankStart, left.cols), left, { bias, accumulate });
    }
    if (direct === undefined) continue;
    const added = lowRank === undefined ? { bias, accumulate } : { accumulate: true };
    backend.linear(target, x, direct, { ...sparse([p]), ...added });
  }
}
