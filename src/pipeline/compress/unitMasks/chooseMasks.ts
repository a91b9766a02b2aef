import { type BlockSpec, findStep, unitsOf } from "../../../arch/index.js";
import type { RecipeStage } from "../../../compress/index.js";
import {
  type ByUnit,
  fisherDiagonal,
  rearrangeMask,
  searchMasks,
  searchMasksByLatency,
  type TimedUnits,
  type UnitCosts,
  type UnitGradients,
  type UnitImportances,
  type UnitMasks,
  type UnitType,
} from "../../../compress/internal.js";
import { UsageError } from "../../../core/index.js";
import { matrixKey } from "../block.js";
import type { Look, StageSurvey } from "../look.js";
import type { PlannedStage } from "../planned.js";
import { timeUnits } from "./timeUnits.js";
import { tuneMasks, type UnitFactors } from "./tuneMasks.js";
import { unitGradientsOf } from "./unitGradientFile.js";
import { unitSums } from "./unitSums.js";

type MaskUnits = RecipeStage & { type: "maskUnits" };

/** Nothing of a kind: what stands for the units of a block that are left alone. */
const untouched: UnitGradients = { values: new Float64Array(), batches: 0, units: 0 };

/** Masks of all heads and neurons of the dense model, by the method of the stage. */
export async function chooseMasks(
  look: Look,
  { matrices }: PlannedStage,
  stage: MaskUnits,
  kept: readonly number[],
): Promise<StageSurvey> {
  const { blocks } = look.plan.description.config.spec;
  const masked = (kind: UnitType) => kept.map((layer) => masksKind(blocks[layer], layer, kind, matrices));
  const asked = { heads: masked("heads"), neurons: masked("neurons") };
  const costs = costsOf(
    kept.map((layer) => blocks[layer]),
    stage.tokens ?? meanLength(look),
  );
  const { of, masks, factors, ...more } = await methods[stage.method]({ look, stage, kept, asked, costs });
  const budgets = kept.map((layer, b) => [
    String(layer),
    { factors: { heads: Array.from(factors.heads[b]), neurons: Array.from(factors.neurons[b]) } },
  ]);
  return {
    budgets: Object.fromEntries(budgets),
    unitMasks: {
      macsShare: macsOf(masks, costs, countOf) / macsOf(of, costs, (units) => units.length),
      heads: masks.heads.map(countOf),
      neurons: masks.neurons.map(countOf),
      tuned: [],
      ...more,
    },
  };
}

/** What a method sees. */
interface Question {
  look: Look;
  stage: MaskUnits;
  kept: readonly number[];
  /** Whether units of a kind are masked, of every block that is kept. */
  asked: ByUnit<boolean[]>;
  costs: UnitCosts;
}

/** What a method answers. */
interface Answer {
  /** Something for every unit that was judged. */
  of: UnitImportances;
  masks: UnitMasks;
  factors: UnitFactors;
  latency?: ByUnit<TimedUnits[]>;
  tuned?: string[];
}

const methods: Readonly<Record<string, (question: Question) => Promise<Answer>>> = {
  fisher: byFisher,
  async magnitude({ look, stage, kept, asked, costs }) {
    const of = onlyAsked(await unitSums(look, kept, false), asked);
    const masks = searchMasks(of, costs, stage.macs! * macsOf(of, costs, (units) => units.length));
    return { of, masks, factors: masks };
  },
  async first({ look, stage, kept, asked, costs }) {
    const { blocks } = look.plan.description.config.spec;
    const none = (kind: UnitType) =>
      kept.map((layer, b) => {
        const count = asked[kind][b] ? unitsOf(blocks[layer]).find((units) => units.kind === kind)!.count : 0;
        return new Float64Array(count);
      });
    const of = { heads: none("heads"), neurons: none("neurons") };
    const budget = stage.macs! * macsOf(of, costs, (units) => units.length) * (1 + 1e-12);
    for (let width = 1000; width >= 0; width--) {
      const first = (kind: UnitType) =>
        of[kind].map(({ length }) => {
          const stays = Math.min(length, Math.max(1, Math.round((width / 1000) * length)));
          return Uint8Array.from({ length }, (_, unit) => (unit < stays ? 1 : 0));
        });
      const masks = { heads: first("heads"), neurons: first("neurons") };
      if (macsOf(masks, costs, countOf) <= budget) return { of, masks, factors: masks };
    }
    throw new UsageError("the budget has no room for one head and one neuron of every layer");
  },
  async zeros({ look, kept, asked }) {
    const of = onlyAsked(await unitSums(look, kept, true), asked);
    const stays = (sums: readonly Float64Array[]) =>
      sums.map((own) => Uint8Array.from(own, (sum) => (sum > 0 ? 1 : 0)));
    const masks = { heads: stays(of.heads), neurons: stays(of.neurons) };
    return { of, masks, factors: masks };
  },
};

const onlyAsked = (of: ByUnit<Float64Array[]>, asked: ByUnit<boolean[]>): UnitImportances => {
  const only = (kind: UnitType) => of[kind].map((own, b) => (asked[kind][b] ? own : new Float64Array()));
  return { heads: only("heads"), neurons: only("neurons") };
};

/** Masks searched under the budget, rearranged within blocks, tuned. */
async function byFisher({ look, stage, kept, asked, costs }: Question): Promise<Answer> {
  const { workspace, checkpoint, plan, options } = look;
  const gradients = await unitGradientsOf(workspace, checkpoint, plan, stage.batch, options);
  const known = (kind: UnitType) => kept.map((layer, b) => (asked[kind][b] ? gradients.get(layer)![kind] : untouched));
  const of = { heads: known("heads"), neurons: known("neurons") };
  const importances = { heads: of.heads.map(fisherDiagonal), neurons: of.neurons.map(fisherDiagonal) };
  const timed = stage.latency === undefined ? undefined : await timeUnits(look, stage.tokens ?? meanLength(look));
  const search = (share: number): UnitMasks => {
    if (timed !== undefined) return searchMasksByLatency(importances, timed.models, share);
    return searchMasks(importances, costs, share * macsOf(importances, costs, (units) => units.length));
  };
  const share = stage.macs ?? stage.latency!;
  const searched = search(share);
  const rearrange = (kind: UnitType) =>
    searched[kind].map((mask, b) => (stage.rearrange ? rearrangeMask(of[kind][b], countOf(mask)) : mask));
  const masks: UnitMasks = { heads: rearrange("heads"), neurons: rearrange("neurons") };
  const found = stage.tune ? await tuneMasks(look, kept, masks, search(Math.sqrt(share))) : { factors: masks };
  return { of: importances, masks, ...(timed && { latency: timed.tables }), ...found };
}

const countOf = (mask: ArrayLike<number>): number => Array.from(mask).reduce((count, keep) => count + keep, 0);

/** Tokens of a calibration text; 1 where there is none. */
function meanLength({ plan: { windows } }: Look): number {
  if (windows === undefined) return 1;
  const { lengths, window } = windows;
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
