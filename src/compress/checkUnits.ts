import type { Pattern } from "./pattern.js";
import type { RecipeStage } from "./recipe.js";
import type { RecipeState, Report, Say, TargetMatrix } from "./recipeTarget.js";
import { unitsKept } from "./structured.js";

/** Matrices of one layer that lose units together. */
interface UnitGroup {
  layer: number;
  /** What their names have in common. */
  names: readonly [string];
  members: { matrix: TargetMatrix; axis: "rows" | "cols" }[];
}

function unitGroups({ matrices }: RecipeState, kind: "heads" | "neurons"): UnitGroup[] {
  const groups = new Map<string, UnitGroup["members"]>();
  for (const matrix of matrices.values()) {
    for (const { group, axis } of matrix.units?.filter((units) => units.kind === kind) ?? []) {
      const key = JSON.stringify([matrix.layer, group]);
      groups.set(key, [...(groups.get(key) ?? []), { matrix, axis }]);
    }
  }
  return [...groups.values()].map((members) => ({
    layer: members[0].matrix.layer,
    names: [commonModule(members.map(({ matrix }) => matrix.names[0]))],
    members,
  }));
}

/** The parts that dotted names have in common, from the left. */
function commonModule(names: readonly string[]): string {
  const [first, ...others] = names.map((name) => name.split("."));
  const differs = first.findIndex((part, i) => others.some((other) => other[i] !== part));
  return first.slice(0, differs < 0 ? first.length : differs).join(".");
}

const axisWords = { rows: "rows", cols: "columns" } as const;

/** Whether whole groups of neurons or heads are targeted, and what their matrices keep of their shapes. */
export function checkUnits(
  stage: RecipeStage & { type: "prune" },
  pattern: Pattern & { type: "neurons" | "heads" },
  matrices: readonly TargetMatrix[],
  state: RecipeState,
  report: Report,
  say: Say,
): void {
  const targeted = new Set(matrices.map(({ key }) => key));
  const groups = unitGroups(state, pattern.type);
  const touched = groups.filter(({ members }) => members.some(({ matrix }) => targeted.has(matrix.key)));
  if (touched.length === 0) say(`the targets have no ${pattern.type} in common with others`);
  for (const group of groups.filter((group) => !touched.includes(group))) {
    const isExpert = group.members.some(({ matrix }) => matrix.expert !== undefined);
    if (isExpert && touched.some(({ layer }) => layer === group.layer))
      report(group, ["all experts of a layer lose as many neurons: it must be targeted too"]);
  }
  for (const group of touched) {
    const { layer, members } = group;
    const missing = members.filter(({ matrix }) => !targeted.has(matrix.key));
    if (missing.length > 0) {
      const roles = missing.map(({ matrix }) => matrix.role).join(", ");
      report(group, [`${pattern.type} are shared with ${roles}, which must be targeted too`]);
      continue;
    }
    const lengthOf = ({ matrix, axis }: UnitGroup["members"][number]) => state.shapes.get(matrix.key)![axis];
    const heads = pattern.type === "heads";
    const count = heads ? state.kvHeads[layer] : lengthOf(members[0]);
    const uneven = members.filter((member) => lengthOf(member) % count !== 0);
    report(
      group,
      uneven.map(
        (member) =>
          `${lengthOf(member)} ${axisWords[member.axis]} of ${member.matrix.role} are not a multiple of ${count}`,
      ),
    );
    if (uneven.length > 0 || !stage.shrink) continue;
    // With one threshold for all blocks the counts are only known once there are scores.
    const multipleOf = heads ? 1 : Math.min(stage.multipleOf, count);
    const global = pattern.scope === "global";
    if (global && members.some(({ matrix }) => matrix.expert !== undefined)) {
      report(group, ["experts lose as many neurons each; they cannot share one threshold"]);
      continue;
    }
    const kept = global ? multipleOf : unitsKept(count, pattern.sparsity, multipleOf);
    if (!heads && kept % 4 !== 0) report(group, [`${kept} neurons stay; only multiples of 4 can be run`]);
    for (const member of members) {
      const { key } = member.matrix;
      state.shapes.set(key, { ...state.shapes.get(key)!, [member.axis]: (lengthOf(member) / count) * kept });
      if (global) state.unsure.add(key);
    }
    if (!heads) continue;
    state.queryHeads[layer] *= kept / count;
    state.kvHeads[layer] = kept;
  }
}

/**
 * Whether heads and neurons of the targets can be masked, one group of each kind in every layer.
 * @returns keys of the matrices that lose units
 */
export function checkMaskedUnits(
  stage: RecipeStage & { type: "maskUnits" },
  selected: readonly TargetMatrix[],
  state: RecipeState,
  report: Report,
  say: Say,
): string[] {
  const matrices = selected.filter(({ units }) => units !== undefined && units.length > 0);
  if (matrices.some(({ expert }) => expert !== undefined)) {
    say("masks are for models without mixtures of experts; leave the experts out (ignore)");
    return [];
  }
  for (const type of ["heads", "neurons"] as const) {
    if (!matrices.some(({ units }) => units!.some(({ kind }) => kind === type))) continue;
    const pattern = { type, sparsity: 0, scope: "global" } as const;
    const asPruned = { type: "prune", method: stage.method, options: {}, pattern } as const;
    const { shrink, multipleOf, targets, ignore } = stage;
    checkUnits({ ...asPruned, shrink, multipleOf, targets, ignore }, pattern, matrices, state, report, say);
  }
  if (matrices.length === 0) say("the targets have no heads or neurons");
  for (const { key } of matrices) state.pruned.add(key);
  return matrices.map(({ key }) => key);
}
