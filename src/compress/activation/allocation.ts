import { breathe, UsageError } from "../../core/index.js";

/** A row of an allocation: which share of zeros each projection of one block gets, and what that does to the block. */
export interface AllocationRow<K extends string> {
  /** Share of the block's weights that need not be read: the mean of `projections` weighted by cost. */
  sparsity: number;
  /** Share of zeros in front of each projection. */
  projections: Readonly<Record<K, number>>;
  /** What `blockError` said of `projections`; undefined where it was not asked. */
  error?: number;
  /** What it said of every projection at `sparsity`. */
  uniformError?: number;
}

/** What an allocation needs to share out the zeros of one block. */
export interface AllocationRequest<K extends string> {
  /** Relative number of weights of every projection. */
  costs: Readonly<Record<K, number>>;
  /** Sparsities that will be looked up. */
  levels: readonly number[];
  /** Error of the block's output when its projections see these shares of zeros. Any measure that grows with damage. */
  blockError(projections: Readonly<Record<K, number>>): Promise<number>;
  /**
   * Greedy: how much a projection of cost 1 rises in one move; others rise by base / cost. Default 0.05. To reach
   * sparsity P takes about P·Σcosts / base moves of one evaluation per projection each (Llama-3-8B at 0.5: 130 moves, 910
   * evaluations a block), so 0.1 halves the time and coarsens the table.
   */
  base?: number;
  /** Greedy: also evaluate the uniform allocation at every row, for one evaluation more. Default false. */
  uniformBaseline?: boolean;
  signal?: AbortSignal;
}

/** Rows by rising sparsity; `nearestRow` finds the one for a level. */
export type Allocation = <K extends string>(request: AllocationRequest<K>) => Promise<AllocationRow<K>[]>;

/** A sparsity summed up from moves may fall short of a level by rounding; that is no reason for one more move. */
const roundingSlack = 1e-9;

/** How a block's budget is shared out among its projections. Every block gets the same budget. */
export const allocations = { uniform, greedy } as const satisfies Record<string, Allocation>;
/** One of `allocations`. */
export type AllocationId = keyof typeof allocations;

/** Every projection the same share; nothing is evaluated. */
async function uniform<K extends string>({ costs, levels }: AllocationRequest<K>): Promise<AllocationRow<K>[]> {
  const sorted = levels.toSorted((a, b) => a - b);
  return sorted.map((sparsity) => ({ sparsity, projections: everywhere(costs, sparsity) }));
}

/**
 * Block-wise greedy allocation of TEAL (arXiv 2408.14690, algorithm 1): starting dense, raise by base / cost whichever
 * projection hurts the block's output least, until the largest level is reached. Every move frees the same number of
 * weights, so the block's sparsity rises by base / Σcosts a move, but for a last step that is cut at a share of 1.
 */
async function greedy<K extends string>(request: AllocationRequest<K>): Promise<AllocationRow<K>[]> {
  const { costs, levels, blockError, base = 0.05, uniformBaseline = false, signal } = request;
  const names = Object.keys(costs) as K[];
  const target = Math.max(...levels);
  let row: AllocationRow<K> = { sparsity: 0, projections: everywhere(costs, 0), error: 0 };
  const rows = [row];
  while (row.sparsity < target - roundingSlack) {
    let best: AllocationRow<K> | undefined;
    for (const name of names) {
      if (row.projections[name] >= 1) continue;
      await breathe(signal);
      const raised = Math.min(1, row.projections[name] + base / costs[name]);
      const projections = { ...row.projections, [name]: raised };
      const error = await blockError(projections);
      if (!Number.isFinite(error)) throw new UsageError(`the block's error is ${error} with ${name} at ${raised}`);
      if (best === undefined || error < best.error!) {
        best = { sparsity: blockSparsity(costs, projections), projections, error };
      }
    }
    if (best === undefined) break;
    if (uniformBaseline) best.uniformError = await blockError(everywhere(costs, best.sparsity));
    rows.push(best);
    row = best;
  }
  return rows;
}

/** Upper bound of the evaluations that the greedy allocation asks for; none for others. For progress. */
export function allocationEvaluations<K extends string>(
  id: AllocationId,
  { costs, levels, base = 0.05, uniformBaseline = false }: Omit<AllocationRequest<K>, "blockError">,
): number {
  if (id !== "greedy") return 0;
  const values = Object.values<number>(costs);
  const moves = Math.ceil(((Math.max(...levels) - roundingSlack) * sum(values)) / base);
  return moves * (values.length + (uniformBaseline ? 1 : 0));
}

/** Mean of the shares weighted by cost. */
export function blockSparsity<K extends string>(
  costs: Readonly<Record<K, number>>,
  projections: Readonly<Record<K, number>>,
): number {
  const names = Object.keys(costs) as K[];
  return sum(names.map((name) => costs[name] * projections[name])) / sum(names.map((name) => costs[name]));
}

/** The row whose sparsity is nearest the level; of two equally near ones the less sparse. */
export function nearestRow<K extends string>(rows: readonly AllocationRow<K>[], level: number): AllocationRow<K> {
  return rows.reduce((best, row) => (Math.abs(row.sparsity - level) < Math.abs(best.sparsity - level) ? row : best));
}

function everywhere<K extends string>(costs: Readonly<Record<K, number>>, value: number): Record<K, number> {
  return Object.fromEntries(Object.keys(costs).map((name) => [name, value])) as Record<K, number>;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
