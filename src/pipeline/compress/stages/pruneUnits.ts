import { type TensorRef, unitsOf } from "../../../arch/index.js";
import type { CoupledGroup, InputStatistics, PruneMethod } from "../../../compress/index.js";
import {
  chooseUnits,
  keepUnits,
  keepUnitsOfVector,
  repairColumns,
  type UnitType,
  unitMask,
  unitScores,
} from "../../../compress/internal.js";
import type { BlockMatrix, DecoderBlock } from "../block.js";
import { inputOf, linearOf, measureChange, type StageContext } from "./stage.js";

/** Matrices of a block that lose units together, in the order of the block. */
export interface CoupledMatrices {
  group: CoupledGroup;
  matrices: BlockMatrix[];
}

/** One group, or for the neurons of a mixture one for every expert. */
export function coupledMatrices(block: DecoderBlock, type: UnitType): CoupledMatrices[] {
  const count = type === "heads" ? block.sizes.kvHeads : block.sizes.intermediateSize;
  return unitsOf(block.spec)
    .filter(({ kind }) => kind === type)
    .map(({ maps }) => {
      const matrices = maps.map(({ map }) => block.matrices.get(map.id)!);
      const members = maps.map(({ axis }, m) => ({
        layer: linearOf(matrices[m]),
        axis: axis === "rows" ? ("rows" as const) : ("columns" as const),
      }));
      return { group: { count, members }, matrices };
    });
}

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
  if (!stage.shrink) return;
  const { sizes } = block;
  if (type === "neurons") sizes.intermediateSize = kept;
  else {
    sizes.queryHeads *= kept / sizes.kvHeads;
    sizes.kvHeads = kept;
  }
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
  const scores = scoresOfUnits(method, coupled, (matrix) => inputOf(context, matrix), options);
  const multipleOf = type === "heads" ? 1 : Math.min(stage.multipleOf, count);
  const sparsity = "sparsity" in stage.pattern ? stage.pattern.sparsity : 0;
  const kept = chooseUnits(
    scores,
    budget?.unitsKept === undefined ? sparsity : 1 - budget.unitsKept / count,
    multipleOf,
  );

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
    if (stage.shrink) {
      const smaller = keepUnits({ ...member, layer: { ...member.layer, weight: repaired } }, count, kept);
      Object.assign(matrix, smaller);
    } else {
      matrix.weight = repaired;
      matrix.mask = matrix.mask?.map((keep, i) => keep & masked[i]) ?? masked;
    }
    const { bias } = matrix.place.map;
    if (bias !== undefined && member.axis === "rows") pruneBias(context, bias, count, kept);
  }
  return kept.length;
}

function pruneBias(
  { block, stage }: StageContext<"prune">,
  ref: TensorRef,
  count: number,
  kept: readonly number[],
): void {
  const bias = block.vectors.get(ref)!;
  if (stage.shrink) {
    bias.values = keepUnitsOfVector(bias.values, count, kept);
    return;
  }
  const size = bias.values.length / count;
  const stays = new Set(kept);
  bias.values = bias.values.map((value, i) => (stays.has(Math.floor(i / size)) ? value : 0));
}
