import { type BlockSpec, findStep, unitsOf } from "../../../arch/index.js";
import type { RecipeStage } from "../../../compress/index.js";
import {
  fisherDiagonal,
  rearrangeMask,
  searchMasks,
  searchMasksByLatency,
  type UnitCosts,
  type UnitGradients,
  type UnitMasks,
  type UnitType,
} from "../../../compress/internal.js";
import { UsageError } from "../../../core/index.js";
import type { BlockUnitGradients } from "../../gradients.js";
import { matrixKey } from "../block.js";
import type { Look, StageSurvey } from "../look.js";
import type { PlannedStage } from "../planned.js";
import { timeUnits } from "./timeUnits.js";
import { tuneMasks } from "./tuneMasks.js";

type MaskUnits = RecipeStage & { type: "maskUnits" };

/** Nothing of a kind: what stands for the units of a block that are left alone. */
const untouched: UnitGradients = { values: new Float64Array(), batches: 0, units: 0 };

/**
 * Masks of all heads and neurons of the dense model: searched under the budget, rearranged within blocks, tuned.
 * @param gradients of `unitGradientsOf`
 */
export async function chooseMasks(
  look: Look,
  { matrices }: PlannedStage,
  stage: MaskUnits,
  kept: readonly number[],
  gradients: ReadonlyMap<number, BlockUnitGradients>,
): Promise<StageSurvey> {
  const { spec } = look.plan.description.config;
  const known = (kind: UnitType) =>
    kept.map((layer) =>
      masksKind(spec.blocks[layer], layer, kind, matrices) ? gradients.get(layer)![kind] : untouched,
    );
  const of = { heads: known("heads"), neurons: known("neurons") };
  const importances = { heads: of.heads.map(fisherDiagonal), neurons: of.neurons.map(fisherDiagonal) };
  const costs = costsOf(
    kept.map((layer) => spec.blocks[layer]),
    stage.tokens ?? meanLength(look),
  );
  const timed = stage.latency === undefined ? undefined : await timeUnits(look, stage.tokens ?? meanLength(look));
  const search = (share: number): UnitMasks => {
    if (timed !== undefined) return searchMasksByLatency(importances, timed.models, share);
    return searchMasks(importances, costs, share * macsOf(importances, costs, (units) => units.length));
  };
  const share = stage.macs ?? stage.latency!;
  const searched = search(share);
  const rearrange = (kind: UnitType) =>
    searched[kind].map((mask, b) => (stage.rearrange ? rearrangeMask(of[kind][b], countOf(mask)) : mask));
  const chosen: UnitMasks = { heads: rearrange("heads"), neurons: rearrange("neurons") };
  const { factors, tuned } = stage.tune
    ? await tuneMasks(look, kept, chosen, search(Math.sqrt(share)))
    : { factors: { heads: chosen.heads.map((m) => [...m]), neurons: chosen.neurons.map((m) => [...m]) }, tuned: [] };
  const budgets = kept.map((layer, b) => [
    String(layer),
    { factors: { heads: factors.heads[b], neurons: factors.neurons[b] } },
  ]);
  return {
    budgets: Object.fromEntries(budgets),
    unitMasks: {
      macsShare: macsOf(chosen, costs, countOf) / macsOf(importances, costs, (units) => units.length),
      ...(timed && { latency: timed.tables }),
      heads: chosen.heads.map(countOf),
      neurons: chosen.neurons.map(countOf),
      tuned,
    },
  };
}

const countOf = (mask: ArrayLike<number>): number => Array.from(mask).reduce((count, keep) => count + keep, 0);

/** Tokens of a calibration text. */
function meanLength({ plan: { windows } }: Look): number {
  const { lengths, window } = windows!;
  return lengths === undefined ? window : lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
}

/** Whether the stage is for the units of a kind in a block. */
function masksKind(block: BlockSpec, layer: number, kind: UnitType, matrices: ReadonlySet<string>): boolean {
  const maps = unitsOf(block).flatMap((units) => (units.kind === kind ? units.maps : []));
  return maps.length > 0 && maps.every(({ map }) => matrices.has(matrixKey(layer, map.id)));
}

/** Multiply-adds that all units of these blocks make, given how many a block has of each kind. */
function macsOf<T>(of: Record<UnitType, readonly T[]>, costs: UnitCosts, count: (of: T) => number): number {
  const all = (kind: UnitType) => of[kind].reduce((sum, units) => sum + count(units), 0) * costs[kind];
  return all("heads") + all("neurons");
}

/**
 * Multiply-adds of one unit for a text of so many tokens: those with its weights, and of a head those of all pairs of tokens.
 * @throws UsageError for blocks whose units differ
 */
function costsOf(blocks: readonly BlockSpec[], tokens: number): UnitCosts {
  const costOf = (block: BlockSpec, kind: UnitType) => {
    const groups = unitsOf(block).filter((units) => units.kind === kind);
    const weights = groups.reduce(
      (sum, { maps, count }) => sum + maps.reduce((all, { map }) => all + (map.rows * map.cols) / count, 0),
      0,
    );
    const { heads, kv } = findStep(block, "attend")!;
    const pairs = kind === "heads" ? (heads / kv.heads) * (kv.k + kv.v) : 0;
    return tokens * weights + tokens * tokens * pairs;
  };
  const costs = { heads: costOf(blocks[0], "heads"), neurons: costOf(blocks[0], "neurons") };
  if (blocks.some((block) => costOf(block, "heads") !== costs.heads || costOf(block, "neurons") !== costs.neurons))
    throw new UsageError("units of different blocks do not cost the same here: one budget for them is not defined");
  return costs;
}
