import { basename, extname } from "node:path";
import { InvalidArgumentError } from "commander";
import type { Pattern, Recipe, RecipeStage } from "../compress/index.js";
import { UsageError } from "../core/index.js";

/** One value a sweep goes through: a share of zeros, or keep:group. */
export type Level = number | { keep: number; group: number };

export interface Candidate {
  /** Also the name of its files. */
  name: string;
  recipe: Recipe;
}

const maxLevels = 100;

/** "0.3..0.8" in steps of 0.1, "0.3..0.8/0.05" in steps of 0.05, "0.5,0.7,2:4". @throws InvalidArgumentError */
export function parseLevels(text: string): Level[] {
  const range = /^(0?\.\d+|0)\.\.(0?\.\d+)(?:\/(0?\.\d+))?$/.exec(text);
  const levels = range === null ? text.split(",").map(parseLevel) : spread(range.slice(1, 4).map(Number));
  if (levels.length === 0 || levels.length > maxLevels)
    throw new InvalidArgumentError(`Give 1 to ${maxLevels} values.`);
  return levels;
}

function spread([from, to, given]: readonly number[]): number[] {
  const step = Number.isNaN(given) ? 0.1 : given;
  const count = Math.floor((to - from) / step + 1e-9) + 1;
  // Sums of decimal steps in binary are not what was meant.
  return Array.from({ length: Math.max(0, Math.min(count, maxLevels + 1)) }, (_, i) =>
    Number((from + i * step).toFixed(6)),
  );
}

function parseLevel(text: string): Level {
  const group = /^(\d{1,2}):(\d{1,2})$/.exec(text.trim());
  if (group !== null) return { keep: Number(group[1]), group: Number(group[2]) };
  const share = text.trim() === "" ? Number.NaN : Number(text);
  if (share >= 0 && share < 1) return share;
  throw new InvalidArgumentError("Give shares like 0.5 or 2:4 with commas between, or a range like 0.3..0.8.");
}

/** Every recipe at every level. @throws UsageError when two candidates would have one name */
export function candidatesOf(
  recipes: readonly { name: string; recipe: Recipe }[],
  levels: readonly Level[] | undefined,
): Candidate[] {
  const candidates = recipes.flatMap(({ name, recipe }): Candidate[] => {
    const plain = basename(name, extname(name).match(/^\.(ya?ml|json)$/) ? extname(name) : "");
    const scalable = recipe.stages.some(({ type }) => type === "prune" || type === "lowRank");
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

function atLevel(stage: RecipeStage, level: Level): RecipeStage {
  if (stage.type === "prune") return { ...stage, pattern: patternAt(stage.pattern, level) };
  if (stage.type !== "lowRank") return stage;
  if (typeof level !== "number") throw new UsageError("low rank has no keep:group; give shares");
  return { ...stage, rank: undefined, keepRatio: 1 - level };
}

function patternAt(pattern: Pattern, level: Level): Pattern {
  if (typeof level !== "number") {
    if (pattern.type !== "unstructured" && pattern.type !== "nm") {
      throw new UsageError(`the pattern ${pattern.type} has no keep:group; give shares, or sweep its recipe by itself`);
    }
    return { type: "nm", ...level };
  }
  if (pattern.type === "nm") return { type: "unstructured", sparsity: level };
  return { ...pattern, sparsity: level };
}
