import { UsageError } from "../../core/index.js";
import type { UnitType } from "../structured.js";

/** Something for the heads and something for the neurons of a block. */
export type ByUnit<T> = Record<UnitType, T>;

/** f64 [units] of every block: how much the loss is expected to grow without each, the diagonal of the Fisher information. */
export type UnitImportances = ByUnit<readonly Float64Array[]>;

/** u8 [units] of every block, 1 = keep. */
export type UnitMasks = ByUnit<Uint8Array[]>;

/** What a head (with grouped queries: a key and value head and all that read it) and a neuron cost, in one and the same unit. */
export type UnitCosts = ByUnit<number>;

/** Where a unit is. */
interface RankedUnit {
  block: number;
  unit: number;
  importance: number;
}

/** All units of one kind, those whose loss costs most first; ties in the order of the model. */
export function rankUnits(importances: readonly Float64Array[]): RankedUnit[] {
  const all = importances.flatMap((of, block) => Array.from(of, (importance, unit) => ({ block, unit, importance })));
  return all.sort((a, b) => b.importance - a.importance);
}

/** [n]: the sum of the first n importances. */
export function importanceSums(ranked: readonly { importance: number }[]): Float64Array {
  const sums = new Float64Array(ranked.length + 1);
  for (const [i, { importance }] of ranked.entries()) sums[i + 1] = sums[i] + importance;
  return sums;
}

/**
 * Which units stay within a budget so that most importance does, all blocks together (Kwon et al. 2022, arXiv:2204.09656, section
 * 4.1): for every number of heads the best ones, and as many of the best neurons as the rest of the budget has room for. Exact for
 * importances that add up.
 * @param budget in the unit of the costs
 * @throws UsageError when not even one head fits
 */
export function searchMasks(importances: UnitImportances, costs: UnitCosts, budget: number): UnitMasks {
  const heads = rankUnits(importances.heads);
  const neurons = rankUnits(importances.neurons);
  const best = bestTrade(importanceSums(heads), importanceSums(neurons), costs, budget, Math.min(1, heads.length));
  if (best === undefined) throw new UsageError("the budget has no room for a single head");
  return {
    heads: masksOf(heads.slice(0, best.heads), importances.heads),
    neurons: masksOf(neurons.slice(0, best.neurons), importances.neurons),
  };
}

/**
 * How many heads and neurons hold most importance within a budget; the fewest heads where several do. undefined: none fit.
 * @param headSums of `importanceSums`
 * @param fewestHeads that are tried
 */
export function bestTrade(
  headSums: Float64Array,
  neuronSums: Float64Array,
  costs: UnitCosts,
  budget: number,
  fewestHeads: number,
): (ByUnit<number> & { importance: number }) | undefined {
  // What is left to the neurons is a small difference of large numbers.
  const allowance = budget * (1 + 1e-12);
  let best: (ByUnit<number> & { importance: number }) | undefined;
  for (let heads = fewestHeads; heads < headSums.length; heads++) {
    const rest = allowance - heads * costs.heads;
    if (rest < 0) break;
    const room = costs.neurons > 0 ? Math.floor(rest / costs.neurons) : Number.POSITIVE_INFINITY;
    const neurons = Math.min(neuronSums.length - 1, room);
    const importance = headSums[heads] + neuronSums[neurons];
    if (best === undefined || importance > best.importance) best = { heads, neurons, importance };
  }
  return best;
}

/** @param like what gives the number of units of every block */
export function masksOf(
  kept: readonly { block: number; unit: number }[],
  like: readonly { length: number }[],
): Uint8Array[] {
  const masks = like.map(({ length }) => new Uint8Array(length));
  for (const { block, unit } of kept) masks[block][unit] = 1;
  return masks;
}
