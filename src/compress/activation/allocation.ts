import { breathe, UsageError } from "../../core/index.js";

/** A row of an allocation: which share of zeros each linear map of one block gets, and what that does to the block. */
export interface AllocationRow {
  /** Share of the block's weights that need not be read: the mean of `shares` weighted by cost. */
  sparsity: number;
  /** Share of zeros in front of each map, by role. */
  shares: Readonly<Record<string, number>>;
  /** What `blockError` said of `shares`; undefined where it was not asked. */
  error?: number;
  /** What it said of every map at `sparsity`. */
  uniformError?: number;
}

/** What an allocation needs to share out the zeros of one block. */
export interface AllocationRequest {
  /** Multiplications of a token with every map, by role (`costsOf`), or anything in their proportions. */
  costs: Readonly<Record<string, number>>;
  /** Sparsities that will be looked up. */
  levels: readonly number[];
  /** Error of the block's output when its maps see these shares of zeros. Any measure that grows with damage. */
  blockError(shares: Readonly<Record<string, number>>): Promise<number>;
  /**
   * Greedy: what one move takes away, in the unit of `costs`: a map rises by base / cost. To reach sparsity P takes about
   * P·Σcosts / base moves of one evaluation per map each (Llama-3-8B at 0.5 and 0.05·hiddenSize²: 130 moves, 910 evaluations
   * a block), so twice as much halves the time and coarsens the table.
   */
  base: number;
  /** Greedy: also evaluate the uniform allocation at every row, for one evaluation more. Default false. */
  uniformBaseline?: boolean;
  signal?: AbortSignal;
}

/** Rows by rising sparsity; `nearestRow` finds the one for a level. */
export type Allocation = (request: AllocationRequest) => Promise<AllocationRow[]>;

/** A sparsity summed up from moves may fall short of a level by rounding; that is no reason for one more move. */
const roundingSlack = 1e-9;

/** How a block's budget is shared out among its linear maps. Every block gets the same budget. */
export const allocations = { uniform, greedy } as const satisfies Record<string, Allocation>;
/** One of `allocations`. */
export type AllocationId = keyof typeof allocations;

/** Every map the same share; nothing is evaluated. */
async function uniform({ costs, levels }: AllocationRequest): Promise<AllocationRow[]> {
  const sorted = levels.toSorted((a, b) => a - b);
  return sorted.map((sparsity) => ({ sparsity, shares: everywhere(costs, sparsity) }));
}

/**
 * Block-wise greedy allocation of TEAL (arXiv 2408.14690, algorithm 1): starting dense, raise by base / cost whichever
 * map hurts the block's output least, until the largest level is reached. Every move frees the same number of
 * weights, so the block's sparsity rises by base / Σcosts a move, but for a last step that is cut at a share of 1.
 */
async function greedy(request: AllocationRequest): Promise<AllocationRow[]> {
  const { costs, levels, blockError, base, uniformBaseline = false, signal } = request;
  const roles = Object.keys(costs);
  const target = Math.max(...levels);
  let row: AllocationRow = { sparsity: 0, shares: everywhere(costs, 0), error: 0 };
  const rows = [row];
  while (row.sparsity < target - roundingSlack) {
    let best: AllocationRow | undefined;
    for (const role of roles) {
      if (row.shares[role] >= 1) continue;
      await breathe(signal);
      const raised = Math.min(1, row.shares[role] + base / costs[role]);
      const shares = { ...row.shares, [role]: raised };
      const error = await blockError(shares);
      if (!Number.isFinite(error)) throw new UsageError(`the block's error is ${error} with ${role} at ${raised}`);
      if (best === undefined || error < best.error!) {
        best = { sparsity: blockSparsity(costs, shares), shares, error };
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
export function allocationEvaluations(
  id: AllocationId,
  { costs, levels, base, uniformBaseline = false }: Omit<AllocationRequest, "blockError">,
): number {
  if (id !== "greedy") return 0;
  const values = Object.values(costs);
  const moves = Math.ceil(((Math.max(...levels) - roundingSlack) * sum(values)) / base);
  return moves * (values.length + (uniformBaseline ? 1 : 0));
}

/** Mean of the shares weighted by cost. */
export function blockSparsity(
  costs: Readonly<Record<string, number>>,
  shares: Readonly<Record<string, number>>,
): number {
  const roles = Object.keys(costs);
  return sum(roles.map((role) => costs[role] * shares[role])) / sum(roles.map((role) => costs[role]));
}

/** The row whose sparsity is nearest the level; of two equally near ones the less sparse. */
export function nearestRow(rows: readonly AllocationRow[], level: number): AllocationRow {
  return rows.reduce((best, row) => (Math.abs(row.sparsity - level) < Math.abs(best.sparsity - level) ? row : best));
}

const everywhere = (costs: Readonly<Record<string, number>>, value: number): Record<string, number> =>
  Object.fromEntries(Object.keys(costs).map((role) => [role, value]));

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
