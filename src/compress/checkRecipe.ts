import { z } from "zod";
import { ProblemsError } from "../core/index.js";
import type { AnyOptions, Method, PruneMethod, Shape } from "./contract.js";
import { matchesGlob } from "./glob.js";
import { lowRankMethods } from "./lowrank/index.js";
import { factorSize, rankForRatio } from "./lowrank/rank.js";
import { pruneMethods } from "./methods/index.js";
import { type Pattern, shapeProblems } from "./pattern.js";
import { quantizeMethods, scaleMethods } from "./quantize/index.js";
import type { Recipe, RecipeStage } from "./recipe.js";
import { coupledProjections, unitsKept } from "./structured.js";

/** What must be known of a model to check a recipe against it. */
export interface RecipeTarget {
  tensors: readonly TargetTensor[];
  /** One per layer. */
  blocks: readonly { queryHeads: number; kvHeads: number }[];
}

interface TargetTensor {
  name: string;
  shape: readonly number[];
  /** Its name in Llama's words, where a checkpoint has its own ("….experts.3.gate_proj.weight"); recipes may use either. */
  role?: string;
}

/** A stage with its method, its complete options and the tensors it works on, in the order of the model. */
export interface ResolvedStage {
  stage: RecipeStage;
  options: AnyOptions;
  tensors: readonly string[];
}

type Table = Readonly<Record<string, () => Promise<{ method: Method<AnyOptions> }>>>;
const tables = { prune: pruneMethods, quantize: quantizeMethods, scale: scaleMethods, lowRank: lowRankMethods };

/** What becomes of the tensors while stages run, by their roles. */
interface State {
  names: ReadonlyMap<string, string>;
  shapes: Map<string, Shape>;
  pruned: Set<string>;
  quantized: Set<string>;
  factored: Set<string>;
  /** Of every layer. */
  kvHeads: number[];
  queryHeads: number[];
  /** Tensors of which one length is only known to be a multiple of what `shapes` says. */
  unsure: Set<string>;
}

/**
 * Checks every stage of a recipe against the shapes that the stages before it leave.
 * @throws ProblemsError with all problems at once
 */
export async function checkRecipe(recipe: Recipe, target: RecipeTarget): Promise<ResolvedStage[]> {
  const matrices = target.tensors.filter(({ shape }) => shape.length === 2);
  const state: State = {
    names: new Map(matrices.map(({ name, role = name }) => [role, name])),
    shapes: new Map(matrices.map(({ name, role = name, shape }) => [role, { rows: shape[0], cols: shape[1] }])),
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
    const found: string[] = [];
    const { tensors, ...rest } = await resolveStage(stage, index, state, found);
    resolved.push({ ...rest, tensors: tensors.map((role) => state.names.get(role)!) });
    const label = `stage ${index + 1} (${stage.type}${"method" in stage ? ` ${stage.method}` : ""})`;
    problems.push(...mergeLayers(found).map((problem) => `${label}: ${problem}`));
  }
  if (problems.length > 0) throw new ProblemsError("the recipe does not fit the model", problems);
  return resolved;
}

/** What several layers have alike is said once. */
function mergeLayers(problems: readonly string[]): string[] {
  const alike = new Map<string, string[]>();
  for (const problem of problems) {
    const merged = problem.replace(/\.layers\.\d+\b/, ".layers.*");
    alike.set(merged, [...(alike.get(merged) ?? []), problem]);
  }
  return [...alike].map(([merged, all]) => (all.length === 1 ? all[0] : `${merged}, in ${all.length} layers`));
}

async function resolveStage(
  stage: RecipeStage,
  index: number,
  state: State,
  problems: string[],
): Promise<ResolvedStage> {
  if (stage.type === "poolHeads") return poolHeads(stage, state, problems);
  if (stage.type === "dropLayers") {
    const layers = state.kvHeads.length;
    if (index > 0) problems.push("layers are dropped before anything else is done");
    if (stage.count >= layers) problems.push(`${stage.count} layers of ${layers}; at least one must stay`);
    return { stage, options: {}, tensors: [] };
  }
  const tensors = select(stage, state, problems);
  const loaded = await loadMethod(tables[stage.type], stage.method, stage.options, problems);
  const report = (name: string, found: readonly string[]) => problems.push(...found.map((p) => `${name}: ${p}`));

  for (const name of tensors) {
    if (state.factored.has(name)) report(name, ["an earlier stage replaced it by low-rank factors"]);
    if (state.quantized.has(name)) report(name, ["an earlier stage quantised it"]);
    if (stage.type === "lowRank" && state.pruned.has(name)) {
      report(name, [
        "an earlier stage pruned it, and factors would fill its zeros; use residual for low rank plus sparse",
      ]);
    }
  }
  if (loaded !== undefined) {
    const { method, options } = loaded;
    if (stage.type === "prune") checkPrune(stage, method as PruneMethod, options, tensors, state, report, problems);
    if (stage.type === "lowRank") await checkLowRank(stage, tensors, state, report, problems);
    if (stage.type === "scale") checkScale(tensors, state, report);
    if (stage.type === "quantize") for (const name of tensors) state.quantized.add(name);
  }
  return { stage, options: loaded?.options ?? {}, tensors };
}

type Report = (name: string, problems: readonly string[]) => void;

/** The layer that a tensor belongs to. */
const layerOf = (name: string) => Number(/\.layers\.(\d+)\./.exec(name)?.[1]);

/** Factors go into what makes the input; several query heads that read one value head would want different ones. */
function checkScale(tensors: readonly string[], { kvHeads, queryHeads }: State, report: Report): void {
  for (const name of tensors) {
    const layer = layerOf(name);
    if (!name.endsWith(".o_proj.weight") || kvHeads[layer] === queryHeads[layer]) continue;
    report(name, [
      `factors of its inputs have no place in v_proj: ${queryHeads[layer]} query heads share ${kvHeads[layer]}`,
    ]);
  }
}

function select(
  stage: { targets: readonly string[]; ignore: readonly string[] },
  { names }: State,
  problems: string[],
): string[] {
  const matches = (glob: string, [role, name]: [string, string]) => matchesGlob(glob, role) || matchesGlob(glob, name);
  for (const glob of [...stage.targets, ...stage.ignore]) {
    if (![...names].some((entry) => matches(glob, entry))) problems.push(`"${glob}" matches no matrix of the model`);
  }
  const any = (globs: readonly string[], entry: [string, string]) => globs.some((glob) => matches(glob, entry));
  const selected = [...names]
    .filter((entry) => any(stage.targets, entry) && !any(stage.ignore, entry))
    .map(([role]) => role);
  if (selected.length === 0) problems.push("no tensors are left to work on");
  return selected;
}

async function loadMethod(table: Table, id: string, raw: AnyOptions, problems: string[]) {
  if (!Object.hasOwn(table, id)) {
    problems.push(`there is no method "${id}"; there are ${Object.keys(table).join(", ")}`);
    return undefined;
  }
  const { method } = await table[id]();
  const parsed = method.options.safeParse(raw);
  if (parsed.success) return { method, options: parsed.data };
  for (const issue of parsed.error.issues) {
    const known = issue.code === "unrecognized_keys" ? `; there are ${optionNames(method).join(", ") || "none"}` : "";
    problems.push(`${["options", ...issue.path].map(String).join(".")}: ${issue.message}${known}`);
  }
  return undefined;
}

function patternProblems(method: PruneMethod, pattern: Pattern, shape: Shape, options: AnyOptions): string[] {
  return [...shapeProblems(shape.rows, shape.cols, pattern), ...(method.problems?.(shape, pattern, options) ?? [])];
}

const inWords = (pattern: string) => (pattern === "nm" ? "keep:group" : pattern);

const optionNames = ({ options }: Method<AnyOptions>) =>
  Object.keys(z.toJSONSchema(options, { io: "input" }).properties ?? {});

/** Whether the method has the pattern with its scope, said once and not for each tensor. */
function admits(method: PruneMethod, pattern: Pattern, problems: string[]): boolean {
  const scopes = method.patterns[pattern.type];
  const scope = "scope" in pattern ? pattern.scope : undefined;
  if (scopes !== undefined && (scope === undefined || scopes.includes(scope))) return true;
  problems.push(
    scopes === undefined
      ? `it has no pattern ${inWords(pattern.type)}; it has ${Object.keys(method.patterns).map(inWords).join(", ")}`
      : `it compares ${inWords(pattern.type)} per ${scopes.join(" or ")}, not per ${scope}`,
  );
  return false;
}

function checkPrune(
  stage: RecipeStage & { type: "prune" },
  method: PruneMethod,
  options: AnyOptions,
  tensors: readonly string[],
  state: State,
  report: Report,
  problems: string[],
): void {
  const { pattern } = stage;
  if (!admits(method, pattern, problems)) return;
  if (pattern.type !== "neurons" && pattern.type !== "heads") {
    for (const name of tensors) {
      report(name, patternProblems(method, pattern, state.shapes.get(name)!, options));
      state.pruned.add(name);
    }
    return;
  }
  const projections = coupledProjections[pattern.type];
  const groups = new Map<string, string[]>();
  for (const name of tensors) {
    const match = /^(.*)\.([^.]+)\.weight$/.exec(name);
    if (match === null || !Object.hasOwn(projections, match[2])) continue;
    groups.set(match[1], [...(groups.get(match[1]) ?? []), match[2]]);
  }
  const allExperts = [...state.names.keys()].flatMap(
    (name) => /^(.*\.experts\.\d+)\.gate_proj\.weight$/.exec(name)?.[1] ?? [],
  );
  for (const prefix of allExperts) {
    const targeted = [...groups.keys()].some(
      (other) => other.includes(".experts.") && layerOf(other) === layerOf(`${prefix}.`),
    );
    if (targeted && !groups.has(prefix))
      report(prefix, ["all experts of a layer lose as many neurons: it must be targeted too"]);
  }
  if (groups.size === 0) problems.push(`the targets hold none of ${Object.keys(projections).join(", ")}`);
  for (const [prefix, members] of groups) {
    const missing = Object.keys(projections).filter((name) => !members.includes(name));
    if (missing.length > 0) {
      report(prefix, [`${pattern.type} are shared with ${missing.join(", ")}, which must be targeted too`]);
      continue;
    }
    const axisLength = (name: string) => {
      const { rows, cols } = state.shapes.get(`${prefix}.${name}.weight`)!;
      return projections[name] === "rows" ? rows : cols;
    };
    const layer = layerOf(`${prefix}.`);
    const heads = pattern.type === "heads";
    const count = heads ? state.kvHeads[layer] : axisLength(members[0]);
    const uneven = members.filter((name) => axisLength(name) % count !== 0);
    report(
      prefix,
      uneven.map((name) => `${axisLength(name)} ${projections[name]} of ${name} are not a multiple of ${count}`),
    );
    if (uneven.length > 0 || !stage.shrink) continue;
    // With one threshold for all blocks the counts are only known once there are scores.
    const multipleOf = heads ? 1 : Math.min(stage.multipleOf, count);
    const global = pattern.scope === "global";
    if (global && prefix.includes(".experts.")) {
      report(prefix, ["experts lose as many neurons each; they cannot share one threshold"]);
      continue;
    }
    const kept = global ? multipleOf : unitsKept(count, pattern.sparsity, multipleOf);
    if (!heads && kept % 4 !== 0) report(prefix, [`${kept} neurons stay; only multiples of 4 can be run`]);
    for (const name of members) {
      const full = `${prefix}.${name}.weight`;
      const { rows, cols } = state.shapes.get(full)!;
      const length = (axisLength(name) / count) * kept;
      state.shapes.set(full, projections[name] === "rows" ? { rows: length, cols } : { rows, cols: length });
      if (global) state.unsure.add(full);
    }
    if (!heads) continue;
    state.queryHeads[layer] *= kept / count;
    state.kvHeads[layer] = kept;
  }
}

async function checkLowRank(
  stage: RecipeStage & { type: "lowRank" },
  tensors: readonly string[],
  state: State,
  report: Report,
  problems: string[],
): Promise<void> {
  const residual =
    stage.residual && (await loadMethod(pruneMethods, stage.residual.method, stage.residual.options, problems));
  const residualMethod = residual?.method as PruneMethod | undefined;
  const residualFits = residualMethod !== undefined && admits(residualMethod, stage.residual!.pattern, problems);
  for (const name of tensors) {
    const shape = state.shapes.get(name)!;
    if (name.includes(".experts.")) report(name, ["experts cannot be stored as factors"]);
    if (state.unsure.has(name)) report(name, ["its size is not known before the stages before it have run"]);
    const rank = stage.rank ?? rankForRatio(shape, stage.keepRatio!, stage.align);
    const full = Math.min(shape.rows, shape.cols);
    if (rank % 4 !== 0) report(name, [`rank ${rank}; only multiples of 4 can be run`]);
    if (rank > full) report(name, [`rank ${rank} is more than the ${full} of ${shape.rows} × ${shape.cols}`]);
    else if (stage.residual === undefined && factorSize(shape, rank) >= shape.rows * shape.cols) {
      report(name, [`factors of rank ${rank} are no smaller than ${shape.rows} × ${shape.cols}`]);
    }
    if (residualFits) report(name, patternProblems(residualMethod, stage.residual!.pattern, shape, residual!.options));
    state.factored.add(name);
  }
}

function poolHeads(stage: RecipeStage & { type: "poolHeads" }, state: State, problems: string[]): ResolvedStage {
  const tensors: string[] = [];
  const uneven = new Set<number>();
  for (const [name, { rows, cols }] of state.shapes) {
    if (!name.endsWith(".k_proj.weight") && !name.endsWith(".v_proj.weight")) continue;
    const heads = state.kvHeads[layerOf(name)];
    if (heads % stage.kvHeads !== 0) uneven.add(heads);
    if (state.quantized.has(name) || state.factored.has(name)) problems.push(`${name}: an earlier stage packed it`);
    tensors.push(name);
    state.shapes.set(name, { rows: (rows / heads) * stage.kvHeads, cols });
  }
  for (const heads of uneven) problems.push(`${heads} key and value heads do not divide into ${stage.kvHeads}`);
  if (tensors.length === 0) problems.push("there are no k_proj and v_proj");
  state.kvHeads.fill(stage.kvHeads);
  return { stage, options: {}, tensors };
}
