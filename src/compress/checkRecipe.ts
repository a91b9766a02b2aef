import * as z from "zod/mini";
import { ProblemsError } from "../core/index.js";
import { parseSchema } from "../core/internal.js";
import { checkEmbedding, checkTensors } from "./checkTensors.js";
import { checkMaskedUnits, checkUnits } from "./checkUnits.js";
import type { AnyOptions, Method, PruneMethod, Shape } from "./contract.js";
import { matchesGlob } from "./glob.js";
import { lowRankMethods } from "./lowrank/index.js";
import { factorSize, rankForRatio } from "./lowrank/rank.js";
import { pruneMethods } from "./methods/index.js";
import { type Pattern, shapeProblems } from "./pattern.js";
import { quantizeMethods, scaleMethods } from "./quantize/index.js";
import type { Recipe, RecipeStage } from "./recipe.js";
import type { RecipeState, RecipeTarget, Report, Say, TargetMatrix } from "./recipeTarget.js";
import { gradientStatistics } from "./statistics.js";
import type { UnitType } from "./structured.js";
import { type TensorMethod, tensorMethods } from "./tensors/index.js";

/** A stage with its method, its complete options and the keys of the matrices it works on, in the order of the model. */
export interface ResolvedStage {
  stage: RecipeStage;
  options: AnyOptions;
  matrices: readonly string[];
}

type NamedMethod = Pick<Method<AnyOptions>, "options">;
type Table = Readonly<Record<string, () => Promise<{ method: NamedMethod }>>>;
const ofTensors: Table = Object.fromEntries(
  Object.entries(tensorMethods).map(([id, method]) => [id, async () => ({ method })]),
);
const tables = {
  prune: pruneMethods,
  quantize: quantizeMethods,
  scale: scaleMethods,
  lowRank: lowRankMethods,
  tensors: ofTensors,
  embedding: ofTensors,
};

/** What stands in the way, of the stage as a whole or of something in one layer. */
interface Problem {
  layer?: number;
  /** Name of a matrix, or of what several have in common. */
  name?: string;
  text: string;
}

/**
 * Checks every stage of a recipe against the shapes that the stages before it leave.
 * @throws ProblemsError with all problems at once
 */
export async function checkRecipe(recipe: Recipe, target: RecipeTarget): Promise<ResolvedStage[]> {
  const state: RecipeState = {
    matrices: new Map(target.matrices.map((matrix) => [matrix.key, matrix])),
    shapes: new Map(target.matrices.map(({ key, rows, cols }) => [key, { rows, cols }])),
    pruned: new Set(),
    quantized: new Set(),
    factored: new Set(),
    kvHeads: target.blocks.map((block) => block.kvHeads),
    queryHeads: target.blocks.map((block) => block.queryHeads),
    unsure: new Set(),
  };
  const problems: string[] = [];
  const resolved: ResolvedStage[] = [];
  for (const [index, stage] of recipe.stages.entries()) {
    const found: Problem[] = [];
    resolved.push(await resolveStage(stage, index, state, target, found));
    const label = `stage ${index + 1} (${stage.type}${"method" in stage ? ` ${stage.method}` : ""})`;
    problems.push(...mergeLayers(found).map((problem) => `${label}: ${problem}`));
  }
  if (problems.length > 0) throw new ProblemsError("the recipe does not fit the model", problems);
  return resolved;
}

/** What several layers have alike is said once. */
function mergeLayers(problems: readonly Problem[]): string[] {
  const alike = new Map<string, Problem[]>();
  for (const problem of problems) {
    const merged = inWords({ ...problem, name: inAnyLayer(problem) });
    alike.set(merged, [...(alike.get(merged) ?? []), problem]);
  }
  return [...alike].map(([merged, all]) =>
    all.length === 1 || all[0].layer === undefined
      ? inWords(all[0])
      : `${merged}, in ${new Set(all.map(({ layer }) => layer)).size} layers`,
  );
}

const inWords = ({ name, text }: Problem) => (name === undefined ? text : `${name}: ${text}`);

/** The name with a star in place of the layer's number. */
function inAnyLayer({ name, layer }: Problem): string | undefined {
  const parts = name?.split(".");
  const at = parts?.indexOf(String(layer)) ?? -1;
  return at < 0 ? name : parts!.with(at, "*").join(".");
}

async function resolveStage(
  stage: RecipeStage,
  index: number,
  state: RecipeState,
  target: RecipeTarget,
  problems: Problem[],
): Promise<ResolvedStage> {
  const say = (text: string) => problems.push({ text });
  if (stage.type === "poolHeads") return poolHeads(stage, state, problems);
  if (stage.type === "dropLayers") {
    const layers = state.kvHeads.length;
    if (index > 0) say("layers are dropped before anything else is done");
    if (stage.count >= layers) say(`${stage.count} layers of ${layers}; at least one must stay`);
    return { stage, options: {}, matrices: [] };
  }
  if (stage.type === "embedding") {
    const found = await loadMethod(tables.embedding, stage.method, stage.options, say);
    if (found !== undefined) checkEmbedding(stage, found.method as TensorMethod, found.options, target, say);
    return { stage, options: found?.options ?? {}, matrices: [] };
  }
  const selected = select(stage, state, say);
  if (stage.type === "maskUnits") {
    if (index > 0) say("masks are of the source's units: let it be the first stage");
    const report: Report = ({ layer, names: [name] }, found) =>
      problems.push(...found.map((text) => ({ layer, name, text })));
    return { stage, options: {}, matrices: checkMaskedUnits(stage, selected, state, report, say) };
  }
  const units = unitsTaken(stage);
  // Of what is targeted, only what has such units changes.
  const matrices = selected.filter((matrix) => units === undefined || hasUnits(matrix, units));
  const loaded = await loadMethod(tables[stage.type], stage.method, stage.options, say);
  const report: Report = ({ layer, names: [name] }, found) =>
    problems.push(...found.map((text) => ({ layer, name, text })));

  for (const matrix of matrices) {
    if (state.factored.has(matrix.key)) report(matrix, ["an earlier stage replaced it by factors"]);
    if (state.quantized.has(matrix.key)) report(matrix, ["an earlier stage quantised it"]);
    if (stage.type === "lowRank" && state.pruned.has(matrix.key)) {
      report(matrix, [
        "an earlier stage pruned it, and factors would fill its zeros; use residual for low rank plus sparse",
      ]);
    }
  }
  if (loaded !== undefined) {
    const { method, options } = loaded;
    if (stage.type === "prune") checkPrune(stage, method as PruneMethod, options, matrices, state, report, say);
    if (stage.type === "lowRank") await checkLowRank(stage, matrices, state, report, say);
    if (stage.type === "tensors")
      checkTensors(stage, method as unknown as TensorMethod, options, matrices, state, report, say);
    if (stage.type === "scale") checkScale(matrices, state, report);
    if (stage.type === "quantize") for (const { key } of matrices) state.quantized.add(key);
  }
  return { stage, options: loaded?.options ?? {}, matrices: matrices.map(({ key }) => key) };
}

/** The kind of units that a stage takes away. */
const unitsTaken = (stage: RecipeStage): UnitType | undefined =>
  stage.type === "prune" && (stage.pattern.type === "neurons" || stage.pattern.type === "heads")
    ? stage.pattern.type
    : undefined;

const hasUnits = ({ units }: TargetMatrix, type: UnitType) => units?.some(({ kind }) => kind === type) ?? false;

/** Factors go into what makes the input; several query heads that read one value head would want different ones. */
function checkScale(matrices: readonly TargetMatrix[], { kvHeads, queryHeads }: RecipeState, report: Report): void {
  for (const matrix of matrices) {
    const { layer, inputsFrom } = matrix;
    if (inputsFrom === undefined) report(matrix, ["factors of its inputs have no place in what makes them"]);
    if (inputsFrom !== "values" || kvHeads[layer] === queryHeads[layer]) continue;
    report(matrix, [
      `factors of its inputs have no place in v_proj: ${queryHeads[layer]} query heads share ${kvHeads[layer]}`,
    ]);
  }
}

function select(
  stage: { targets: readonly string[]; ignore: readonly string[] },
  { matrices }: RecipeState,
  say: Say,
): TargetMatrix[] {
  const all = [...matrices.values()];
  const matches = (glob: string, { names }: TargetMatrix) => names.some((name) => matchesGlob(glob, name));
  for (const glob of [...stage.targets, ...stage.ignore]) {
    if (!all.some((matrix) => matches(glob, matrix))) say(`"${glob}" matches no matrix of the model`);
  }
  const any = (globs: readonly string[], matrix: TargetMatrix) => globs.some((glob) => matches(glob, matrix));
  const selected = all.filter((matrix) => any(stage.targets, matrix) && !any(stage.ignore, matrix));
  if (selected.length === 0) say("no tensors are left to work on");
  return selected;
}

async function loadMethod(table: Table, id: string, raw: AnyOptions, say: Say) {
  if (!Object.hasOwn(table, id)) {
    say(`there is no method "${id}"; there are ${Object.keys(table).join(", ")}`);
    return undefined;
  }
  const { method } = await table[id]();
  const parsed = parseSchema(method.options, raw);
  if (parsed.success) return { method, options: parsed.data };
  for (const issue of parsed.error.issues) {
    const known = issue.code === "unrecognized_keys" ? `; there are ${optionNames(method).join(", ") || "none"}` : "";
    say(`${["options", ...issue.path].map(String).join(".")}: ${issue.message}${known}`);
  }
  return undefined;
}

function patternProblems(method: PruneMethod, pattern: Pattern, shape: Shape, options: AnyOptions): string[] {
  return [...shapeProblems(shape.rows, shape.cols, pattern), ...(method.problems?.(shape, pattern, options) ?? [])];
}

const patternInWords = (pattern: string) => (pattern === "nm" ? "keep:group" : pattern);

const optionNames = ({ options }: NamedMethod) =>
  Object.keys(z.toJSONSchema(options, { io: "input" }).properties ?? {});

/** Whether the method has the pattern with its scope, said once and not for each tensor. */
function admits(method: PruneMethod, pattern: Pattern, say: Say): boolean {
  const scopes = method.patterns[pattern.type];
  const scope = "scope" in pattern ? pattern.scope : undefined;
  if (scopes !== undefined && (scope === undefined || scopes.includes(scope))) return true;
  say(
    scopes === undefined
      ? `it has no pattern ${patternInWords(pattern.type)}; it has ${Object.keys(method.patterns).map(patternInWords).join(", ")}`
      : `it compares ${patternInWords(pattern.type)} per ${scopes.join(" or ")}, not per ${scope}`,
  );
  return false;
}

function checkPrune(
  stage: RecipeStage & { type: "prune" },
  method: PruneMethod,
  options: AnyOptions,
  matrices: readonly TargetMatrix[],
  state: RecipeState,
  report: Report,
  say: Say,
): void {
  const { pattern } = stage;
  if (!admits(method, pattern, say)) return;
  if ((stage.steps ?? 1) > 1) checkSteps(stage, method, options, matrices, say);
  if (pattern.type === "neurons" || pattern.type === "heads") {
    checkUnits(stage, pattern, matrices, state, report, say);
    return;
  }
  for (const matrix of matrices) {
    report(matrix, patternProblems(method, pattern, state.shapes.get(matrix.key)!, options));
    state.pruned.add(matrix.key);
  }
}

/** Between two steps only gradients are computed anew. */
function checkSteps(
  { pattern }: RecipeStage & { type: "prune" },
  method: PruneMethod,
  options: AnyOptions,
  matrices: readonly TargetMatrix[],
  say: Say,
): void {
  const needs = method.needs(options);
  if (pattern.type !== "neurons" && pattern.type !== "heads") say("steps are of neurons and heads");
  else if (matrices.some(({ expert }) => expert !== undefined)) say("units of experts go in one step");
  else if (needs.length === 0 || needs.some((id) => !gradientStatistics.some((known) => known === id)))
    say(
      "its importances do not follow gradients alone, so that steps would change nothing or be wrong; leave them out",
    );
}

async function checkLowRank(
  stage: RecipeStage & { type: "lowRank" },
  matrices: readonly TargetMatrix[],
  state: RecipeState,
  report: Report,
  say: Say,
): Promise<void> {
  const residual =
    stage.residual && (await loadMethod(pruneMethods, stage.residual.method, stage.residual.options, say));
  const residualMethod = residual?.method as PruneMethod | undefined;
  const residualFits = residualMethod !== undefined && admits(residualMethod, stage.residual!.pattern, say);
  for (const matrix of matrices) {
    const shape = state.shapes.get(matrix.key)!;
    if (matrix.expert !== undefined) report(matrix, ["experts cannot be stored as factors"]);
    if (state.unsure.has(matrix.key)) {
      report(matrix, ["its size is not known before the stages before it have run"]);
    }
    const rank = stage.rank ?? rankForRatio(shape, stage.keepRatio!, stage.align);
    const full = Math.min(shape.rows, shape.cols);
    if (rank % 4 !== 0) report(matrix, [`rank ${rank}; only multiples of 4 can be run`]);
    if (rank > full) report(matrix, [`rank ${rank} is more than the ${full} of ${shape.rows} × ${shape.cols}`]);
    else if (stage.residual === undefined && factorSize(shape, rank) >= shape.rows * shape.cols) {
      report(matrix, [`factors of rank ${rank} are no smaller than ${shape.rows} × ${shape.cols}`]);
    }
    if (residualFits) {
      report(matrix, patternProblems(residualMethod, stage.residual!.pattern, shape, residual!.options));
    }
    state.factored.add(matrix.key);
  }
}

function poolHeads(stage: RecipeStage & { type: "poolHeads" }, state: RecipeState, problems: Problem[]): ResolvedStage {
  const matrices: string[] = [];
  const uneven = new Set<number>();
  for (const { key, layer, names, keysOrValues } of state.matrices.values()) {
    if (!keysOrValues) continue;
    const { rows, cols } = state.shapes.get(key)!;
    const heads = state.kvHeads[layer];
    if (heads % stage.kvHeads !== 0) uneven.add(heads);
    if (state.quantized.has(key) || state.factored.has(key))
      problems.push({ layer, name: names[0], text: "an earlier stage packed it" });
    matrices.push(key);
    state.shapes.set(key, { rows: (rows / heads) * stage.kvHeads, cols });
  }
  for (const heads of uneven)
    problems.push({ text: `${heads} key and value heads do not divide into ${stage.kvHeads}` });
  if (matrices.length === 0) problems.push({ text: "there are no k_proj and v_proj" });
  state.kvHeads.fill(stage.kvHeads);
  return { stage, options: {}, matrices };
}
