import { basename, extname } from "node:path";
import type { Pattern, Recipe, RecipeStage } from "../compress/index.js";
import { UsageError } from "../core/index.js";

/** One value a sweep goes through: a share of zeros, or keep:group. */
export type SweepLevel = number | { keep: number; group: number };

/** One compression of a sweep. */
export interface SweepCandidate {
  /** Also the name of its files. */
  name: string;
  recipe: Recipe;
}

/** Every recipe at every level. @throws UsageError when two candidates would have one name */
export function sweepCandidates(
  recipes: readonly { name: string; recipe: Recipe }[],
  levels: readonly SweepLevel[] | undefined,
): SweepCandidate[] {
  const candidates = recipes.flatMap(({ name, recipe }): SweepCandidate[] => {
    const plain = basename(name, extname(name).match(/^\.(ya?ml|json)$/) ? extname(name) : "");
    const scalable = recipe.stages.some(({ type }) => type === "prune" || type === "lowRank" || type === "maskUnits");
    if (levels === undefined || !scalable) return [{ name: fileName(plain), recipe }];
    // Presets end in the level that is replaced.
    const stem = plain.replace(/-(\d+|\d+:\d+)$/, "");
    return levels.map((level) => ({
      name: fileName(`${stem}-${typeof level === "number" ? level : `${level.keep}:${level.group}`}`),
      recipe: { ...recipe, title: undefined, stages: recipe.stages.map((stage) => atLevel(stage, level)) },
    }));
  });
  const names = candidates.map(({ name }) => name);
  const taken = names.find((name) => name === "source" || name === "sweep");
  if (taken !== undefined) throw new UsageError(`a candidate cannot be called ${taken}; rename the recipe file`);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UsageError(`two candidates are called ${twice}; rename a recipe file`);
  return candidates;
}

/** Names are file names, on Windows too. */
const fileName = (name: string) => name.replace(/:/g, "of").replace(/[^A-Za-z0-9._-]/g, "_");

function atLevel(stage: RecipeStage, level: SweepLevel): RecipeStage {
  if (stage.type === "prune") return { ...stage, pattern: patternAt(stage.pattern, level) };
  if (stage.type !== "lowRank" && stage.type !== "maskUnits") return stage;
  if (typeof level !== "number") throw new UsageError("low rank and masks have no keep:group; give shares");
  if (stage.type === "maskUnits" && stage.method === "zeros") return stage;
  if (stage.type === "maskUnits")
    return stage.macs === undefined ? { ...stage, latency: 1 - level } : { ...stage, macs: 1 - level };
  return { ...stage, rank: undefined, keepRatio: 1 - level };
}

function patternAt(pattern: Pattern, level: SweepLevel): Pattern {
  if (typeof level !== "number") {
    if (pattern.type !== "unstructured" && pattern.type !== "nm") {
      throw new UsageError(`the pattern ${pattern.type} has no keep:group; give shares, or sweep its recipe by itself`);
    }
    return { type: "nm", ...level };
  }
  if (pattern.type === "nm") return { type: "unstructured", sparsity: level };
  return { ...pattern, sparsity: level };
}
