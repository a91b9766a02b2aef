import type { InputStatistics, PruneMethod } from "../../../compress/index.js";
import { chooseUnits, repairColumns, type UnitType, unitMask, unitScores } from "../../../compress/internal.js";
import type { BlockMatrix } from "../block.js";
import { type CoupledMatrices, coupledMatrices, shrinkGroup, sizesWith, zeroGroup } from "./cutUnits.js";
import { inputOf, measureChange, type StageContext } from "./stage.js";

/** f32 [units]: what the block loses with each. */
export function scoresOfUnits(
  method: PruneMethod,
  { group, matrices }: CoupledMatrices,
  statisticsOf: (matrix: BlockMatrix) => InputStatistics,
  options: Record<string, unknown>,
): Float32Array {
  const statistics = matrices.map(statisticsOf);
  if (method.unitScores !== undefined) return method.unitScores(group, statistics, options);
  return unitScores(
    group,
    group.members.map(({ layer }, m) => method.score!(layer, statistics[m], options)),
  );
}

/**
 * Removes whole neurons, or key and value heads with the query heads that read them: matching slices of all their
 * matrices and biases. Methods that know the gram of the inputs let the columns that stay make good for those that go.
 */
export async function pruneUnits(context: StageContext<"prune">, method: PruneMethod): Promise<void> {
  const { stage, block } = context;
  const type = stage.pattern.type as UnitType;
  // A block of which some matrices are ignored is left alone.
  if (context.targets.length === 0) return;
  let kept = 0;
  for (const coupled of coupledMatrices(block, type)) kept = await pruneGroup(context, method, coupled, type);
  if (stage.shrink) Object.assign(block.sizes, sizesWith(block.sizes, type, kept));
}

/** @returns how many units stay: as many in every group of a block */
async function pruneGroup(
  context: StageContext<"prune">,
  method: PruneMethod,
  coupled: CoupledMatrices,
  type: UnitType,
): Promise<number> {
  const { stage, options, budget } = context;
  const { group, matrices } = coupled;
  const { count } = group;
  const choose = () => {
    const scores = scoresOfUnits(method, coupled, (matrix) => inputOf(context, matrix), options);
    const multipleOf = type === "heads" ? 1 : Math.min(stage.multipleOf, count);
    const sparsity = "sparsity" in stage.pattern ? stage.pattern.sparsity : 0;
    return chooseUnits(scores, budget?.unitsKept === undefined ? sparsity : 1 - budget.unitsKept / count, multipleOf);
  };
  const kept = budget?.units ?? choose();

  const repairs = method.needs(options).includes("gram");
  for (const [m, member] of group.members.entries()) {
    await context.breathe();
    const matrix = matrices[m];
    const masked = unitMask(member, count, kept);
    const repaired =
      repairs && member.axis === "columns"
        ? repairColumns(member, count, kept, inputOf(context, matrix)).weight
        : matrix.weight.map((w, i) => (masked[i] === 1 ? w : 0));
    if (member.axis === "columns") measureChange(context, matrix, repaired);
    matrix.weight = repaired;
  }
  if (stage.shrink) shrinkGroup(context.block, coupled, kept);
  else zeroGroup(context.block, coupled, kept);
  return kept.length;
}
