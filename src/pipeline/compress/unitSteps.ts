import { type BlockSpec, unitsOf } from "../../arch/index.js";
import { gradientStatistics, type PruneMethod, pruneMethods, type RecipeStage } from "../../compress/index.js";
import { chooseUnits, shareGlobally, type UnitType, unitsKept } from "../../compress/internal.js";
import type { BlockGradients } from "../gradients.js";
import { loadBlock, matrixKey } from "./block.js";
import type { Look } from "./look.js";
import type { PlannedStage } from "./planned.js";
import { coupledMatrices } from "./stages/cutUnits.js";
import { scoresOfUnits } from "./stages/pruneUnits.js";
import { inputOf, isInSteps, type StageBudget } from "./stages/stage.js";

/** A stage on its way to its share. */
interface Growing {
  planned: PlannedStage;
  stage: RecipeStage & { type: "prune" };
  method: PruneMethod;
  type: UnitType;
  steps: number;
  /** By layer: how many units the source has, and those that still stay, ascending. */
  units: Map<number, { count: number; stay: number[] }>;
}

/**
 * Iterative selection of LLM-Pruner (Ma, Fang, Wang 2023, arXiv:2305.11627): the share of units that go grows linearly over the steps
 * of a stage, and importances are computed anew before each, with the units zero that have gone so far, of all such stages.
 * @returns budgets by the index of the stage, then by layer
 */
export async function chooseInSteps(look: Look): Promise<Record<string, Record<string, StageBudget>>> {
  const { spec } = look.plan.description.config;
  const growing = await Promise.all(look.plan.stages.filter(({ stage }) => isInSteps(stage)).map(begin));
  for (const { planned, type, units } of growing) {
    for (const [layer, block] of spec.blocks.entries()) {
      const own = unitsOf(block).find(({ kind }) => kind === type);
      if (own === undefined || !own.maps.every(({ map }) => planned.matrices.has(matrixKey(layer, map.id)))) continue;
      units.set(layer, { count: own.count, stay: Array.from({ length: own.count }, (_, unit) => unit) });
    }
  }
  const last = Math.max(0, ...growing.map(({ steps }) => steps));
  for (let step = 1; step <= last; step++) {
    const now = growing.filter(({ steps }) => step <= steps);
    const scores = new Map<Growing, Map<number, Float32Array>>(now.map((one) => [one, new Map()]));
    for await (const { layer, values } of gradientsAt(look, step, growing)) {
      const block = await loadBlock(look.checkpoint, look.plan.description.config, layer);
      for (const one of now) {
        const own = one.units.get(layer);
        if (own === undefined) continue;
        const known = { statistics: new Map(), gradients: values };
        const [coupled] = coupledMatrices(block, one.type);
        const all = scoresOfUnits(one.method, coupled, (matrix) => inputOf(known, matrix), one.planned.options);
        scores.get(one)!.set(
          layer,
          Float32Array.from(own.stay, (unit) => all[unit]),
        );
      }
    }
    for (const one of now) await shrink(one, step, scores.get(one)!);
  }
  return Object.fromEntries(
    growing.map(({ planned, units }) => [
      planned.index,
      Object.fromEntries(Array.from(units, ([layer, { stay }]) => [layer, { units: stay }])),
    ]),
  );
}

async function begin(planned: PlannedStage): Promise<Growing> {
  const stage = planned.stage as Growing["stage"];
  const { method } = await pruneMethods[stage.method]();
  return { planned, stage, method, type: stage.pattern.type as UnitType, steps: stage.steps!, units: new Map() };
}

/** Those of the source are there already; later ones are of the model without what has gone. */
async function* gradientsAt(
  { plan, checkpoint, gradients, options }: Look,
  step: number,
  growing: readonly Growing[],
): AsyncGenerator<BlockGradients> {
  const { spec } = plan.description.config;
  if (step === 1) {
    for (const layer of spec.blocks.keys()) yield { layer, values: await gradients!.read(layer) };
    return;
  }
  const wanted = gradientStatistics.filter((id) => growing.some(({ planned }) => planned.gradients.includes(id)));
  yield* options.gradients!.blockGradients(checkpoint, spec, plan.windows!, wanted, {
    signal: options.signal,
    onProgress: options.onProgress,
    change(layer, weights) {
      for (const { type, units } of growing) {
        const own = units.get(layer);
        if (own !== undefined) withoutUnits(spec.blocks[layer], type, own.stay, weights);
      }
    },
  });
}

/** A unit whose columns are zero gives nothing, whatever its rows are. */
function withoutUnits(
  block: BlockSpec,
  type: UnitType,
  stay: readonly number[],
  weights: ReadonlyMap<string, { [index: number]: number; readonly length: number }>,
): void {
  const stays = new Set(stay);
  const { count, maps } = unitsOf(block).find(({ kind }) => kind === type)!;
  for (const { map, axis } of maps) {
    if (axis !== "cols") continue;
    const weight = weights.get(map.id)!;
    const width = map.cols / count;
    for (let i = 0; i < weight.length; i++) if (!stays.has(Math.floor((i % map.cols) / width))) weight[i] = 0;
  }
}

/** Takes away what the step adds to the share. @param scores of the units that stay, by layer */
async function shrink(
  { stage, steps, type, units }: Growing,
  step: number,
  scores: ReadonlyMap<number, Float32Array>,
): Promise<void> {
  const { pattern } = stage;
  const share = (("sparsity" in pattern ? pattern.sparsity : 0) * step) / steps;
  // In every step, so that no step leaves fewer than the rounded width of the result.
  const multipleOf = type === "heads" ? 1 : stage.multipleOf;
  const global = "scope" in pattern && pattern.scope === "global";
  const widths = global ? await sharedWidths(units, share, scores) : undefined;
  for (const [layer, own] of units) {
    const wanted = widths?.get(layer) ?? unitsKept(own.count, share);
    const width = Math.min(own.stay.length, Math.ceil(wanted / multipleOf) * multipleOf);
    const found = chooseUnits(scores.get(layer)!, (own.stay.length - width) / own.stay.length);
    own.stay = found.map((i) => own.stay[i]);
  }
}

/** One threshold for what stays in all blocks: how many each keeps. */
async function sharedWidths(
  units: Growing["units"],
  share: number,
  scores: ReadonlyMap<number, Float32Array>,
): Promise<Map<number, number>> {
  const layers = [...units.keys()];
  const [all, left] = [...units.values()].reduce(
    ([all, left], { count, stay }) => [all + count, left + stay.length],
    [0, 0],
  );
  const scored = layers.map((layer) => ({
    name: String(layer),
    length: scores.get(layer)!.length,
    scores: async () => scores.get(layer)!,
  }));
  const gone = await shareGlobally(scored, 1 - (all * (1 - share)) / left);
  return new Map(layers.map((layer, i) => [layer, Math.max(1, scored[i].length - gone[i])]));
}
