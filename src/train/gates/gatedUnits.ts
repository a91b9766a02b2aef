import { UsageError } from "../../core/index.js";
import { type Units, unitProducts } from "../selection/groups.js";
import { coupledUnits } from "../selection/patterns.js";
import type { ParameterInfo, SharedUnits, Values } from "../values.js";

/** Units of one kind in one block: its attention heads, or its neurons. */
export interface GatedGroup {
  /** As `SharedUnits` has it. */
  name: string;
  kind: SharedUnits["type"];
  count: number;
  /** Multiply-adds of a unit for one token, in texts of the length that was asked for. */
  cost: number;
  /** The columns behind the units, which what they give is multiplied with: where gates are. */
  behind: Units;
  /** All their rows and columns. */
  all: Units;
}

/**
 * The groups of units that can be gated, in the order of the parameters.
 * @param kinds of units
 * @param tokens of a text, for what the pairs of its tokens cost a head; 0: weights alone
 * @throws UsageError for a model that has none, or whose units end in no matrix
 */
export function gatedGroups(
  parameters: readonly ParameterInfo[],
  kinds: readonly SharedUnits["type"][],
  tokens: number,
): GatedGroup[] {
  const found = kinds.flatMap((kind) =>
    coupledUnits(parameters, kind).map(({ name, units }) => groupOf(name, kind, units, tokens)),
  );
  if (found.length === 0) throw new UsageError(`this model has no ${kinds.join(" or ")} that could be gated`);
  const order = new Map(parameters.map(({ name }, i) => [name, i]));
  return found.sort((a, b) => order.get(a.all.members[0].name)! - order.get(b.all.members[0].name)!);
}

function groupOf(name: string, kind: SharedUnits["type"], all: Units, tokens: number): GatedGroup {
  const { count } = all;
  // Rows are numbered by their unit, columns the other way round.
  const members = all.members.filter(({ rowStride }) => rowStride === 0);
  if (members.length === 0)
    throw new UsageError(`what the ${kind} of ${name} give enters no matrix of their own, so that no gate has a place`);
  const weights = all.members.reduce((sum, { rows, cols }) => sum + (rows * cols) / count, 0);
  // Of a head: its products with all keys are as long as its queries together, what it reads of all values as long as its output.
  const queries = Math.max(0, ...all.members.filter(({ rowStride }) => rowStride > 0).map(({ rows }) => rows / count));
  const pairs = kind === "heads" ? queries + members.reduce((sum, { cols }) => sum + cols / count, 0) : 0;
  return { name, kind, count, cost: weights + tokens * pairs, behind: { ...all, members }, all };
}

/** Multiply-adds of all units of all groups. */
export const costOfAll = (groups: readonly GatedGroup[]): number =>
  groups.reduce((sum, { count, cost }) => sum + count * cost, 0);

/** f64 [count]: dL/d(gate) of every unit, given the gradient by the gated columns and the columns as they are without gates. */
export const gateGradients = ({ behind }: GatedGroup, gradients: Values, weights: Values): Float64Array =>
  unitProducts(behind, gradients, weights);

/**
 * The units that stay within a budget: the most important first, of all groups together, as long as there is room; what has no
 * room for one may have it for the next. Ties in the order of the groups.
 * @param importance f64 [count] of every group
 * @param budget in the unit of the costs
 * @returns u8 [count] of every group, 1 = keep
 */
export function keepWithin(
  groups: readonly GatedGroup[],
  importance: readonly ArrayLike<number>[],
  budget: number,
): Uint8Array[] {
  const kept = groups.map(({ count }) => new Uint8Array(count));
  const ranked = groups.flatMap(({ count }, g) => Array.from({ length: count }, (_, unit) => ({ g, unit })));
  ranked.sort((a, b) => importance[b.g][b.unit] - importance[a.g][a.unit]);
  let rest = budget * (1 + 1e-12);
  for (const { g, unit } of ranked) {
    if (groups[g].cost > rest) continue;
    kept[g][unit] = 1;
    rest -= groups[g].cost;
  }
  return kept;
}
