import * as z from "zod/mini";
import type { ModelConfig } from "../../arch/index.js";
import { placesOf } from "../../arch/internal.js";
import { gradientStatistics, InputStatistics, pruneMethods } from "../../compress/index.js";
import { type ScoredTensor, shareGlobally, type UnitType } from "../../compress/internal.js";
import { breathe, FormatError, Stage, UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { type Checkpoint, sha256Hex, type UnitMasksRecord } from "../../io/index.js";
import { readReference, unitMasksRecord } from "../../io/internal.js";
import type { Backend } from "../../kernels/index.js";
import { type DecoderBlock, loadBlock, matrixKey } from "./block.js";
import { type LoadableBlock, loadable } from "./blockSource.js";
import { CalibrationRun } from "./calibrationRun.js";
import type { GradientFiles } from "./gradientFiles.js";
import type { Look } from "./look.js";
import type { CompressionPlan, CompressOptions, PlannedStage } from "./planned.js";
import { coupledMatrices } from "./stages/cutUnits.js";
import { scoresOfUnits } from "./stages/pruneUnits.js";
import { inputOf, isGlobal, isInSteps, type StageBudget } from "./stages/stage.js";
import { chooseMasks } from "./unitMasks/chooseMasks.js";
import { chooseInSteps } from "./unitSteps.js";
import type { Workspace } from "./workspace.js";

/** What has to be known of the whole dense model before the first block is compressed. */
export interface Survey {
  /** Layers of the source that stay, ascending. */
  kept: number[];
  /** By stage of the recipe, then by layer of the source. */
  budgets: Record<string, Record<string, StageBudget>>;
  /** What a stage of masks came to. */
  unitMasks?: UnitMasksRecord;
}

const surveySchema: z.core.$ZodType<Survey> = z.strictObject({
  kept: z.array(z.int().check(z.gte(0))).check(z.maxLength(4096)),
  budgets: z.record(
    z.string(),
    z.record(
      z.string(),
      z.strictObject({
        zeros: z.optional(z.record(z.string(), z.int().check(z.gte(0)))),
        unitsKept: z.optional(z.int().check(z.gte(1))),
        units: z.optional(z.array(z.int().check(z.gte(0)))),
        factors: z.optional(z.strictObject({ heads: z.array(z.number()), neurons: z.array(z.number()) })),
      }),
    ),
  ),
  unitMasks: z.optional(unitMasksRecord),
});

const storedSchema = z.strictObject({ sha256: z.string(), survey: surveySchema });

/** What is stored of a survey. Its numbers decide the result and nothing else would notice a wrong one: hence the hash. */
export const storedSurvey = async (survey: Survey) => ({ sha256: await sha256Hex(JSON.stringify(survey)), survey });

/** Reads back what an earlier run of the job has seen. @throws FormatError, also for layers that the model does not have */
export async function parseSurvey(raw: unknown, plan: CompressionPlan, file: string): Promise<Survey> {
  const hint = "Begin anew (`restart`)";
  const { sha256, survey } = checkSchema(storedSchema, raw, file, hint);
  const { kept } = survey;
  const { layers } = plan.description.config;
  const rising = kept.every((layer, i) => layer < layers && (i === 0 || layer > kept[i - 1]));
  if (!rising || kept.length !== plan.layers) {
    const expected = `${plan.layers} of the ${layers} layers, in their order`;
    throw new FormatError({ file, field: "survey.kept", problem: `layers ${kept.join(", ")}`, expected, hint });
  }
  if (sha256 !== (await sha256Hex(JSON.stringify(survey)))) {
    throw new FormatError({ file, problem: "not what the job wrote", hint });
  }
  return survey;
}

/** The survey of a job that need not look. */
export function wholeModel({ drop, stages, description }: CompressionPlan): Survey | undefined {
  if (drop !== undefined || stages.some(({ stage }) => isGlobal(stage))) return undefined;
  return { kept: Array.from({ length: description.config.layers }, (_, layer) => layer), budgets: {} };
}

/** Looks at the dense model; what it finds is worth keeping. */
export async function surveyModel(
  workspace: Workspace,
  checkpoint: Checkpoint,
  plan: CompressionPlan,
  backend: Backend | undefined,
  options: CompressOptions,
  gradients?: GradientFiles,
): Promise<Survey> {
  const look: Look = { workspace, checkpoint, plan, backend, options, gradients };
  const kept = await layersToKeep(look);
  const budgets: Survey["budgets"] = await chooseInSteps(look);
  let unitMasks: UnitMasksRecord | undefined;
  for (const planned of plan.stages) {
    if (planned.stage.type === "maskUnits") {
      const found = await chooseMasks(look, planned, planned.stage, kept);
      budgets[planned.index] = found.budgets;
      unitMasks = found.unitMasks;
      continue;
    }
    if (!isGlobal(planned.stage) || isInSteps(planned.stage) || planned.stage.type !== "prune") continue;
    const { type } = planned.stage.pattern;
    budgets[planned.index] =
      type === "neurons" || type === "heads"
        ? await shareUnits(look, planned, kept, type)
        : await shareEntries(checkpoint, plan.description.config, planned, kept);
  }
  return { kept, budgets, ...(unitMasks && { unitMasks }) };
}

/** Drops the blocks of least influence, 1 − the mean cosine of what enters and what leaves (Men et al. 2024, ShortGPT). */
async function layersToKeep(look: Look): Promise<number[]> {
  const { plan } = look;
  const { layers } = plan.description.config;
  const all = Array.from({ length: layers }, (_, layer) => layer);
  if (plan.drop === undefined) return all;
  const { method, count } = plan.drop;
  if (method === "last") return all.slice(0, layers - count);
  const influence: number[] = [];
  await eachDenseBlock(look, all, async ({ run, dense }) => {
    const before = run!.streams.slice();
    await run!.advance(dense);
    influence.push(1 - meanCosine(before, run!.streams, run!.hiddenSize));
  });
  const dropped = all.toSorted((a, b) => influence[a] - influence[b] || a - b).slice(0, count);
  return all.filter((layer) => !dropped.includes(layer));
}

/** Mean over rows of the cosine between a and b, f32 [rows, width]. */
function meanCosine(a: Float32Array, b: Float32Array, width: number): number {
  let sum = 0;
  for (let start = 0; start < a.length; start += width) {
    let [aa, bb, ab] = [0, 0, 0];
    for (let i = start; i < start + width; i++) {
      aa += a[i] * a[i];
      bb += b[i] * b[i];
      ab += a[i] * b[i];
    }
    sum += aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
  }
  return sum / (a.length / width);
}

/** One threshold for all entries: how many zeros each matrix gets. Scores that need no inputs only. */
async function shareEntries(
  checkpoint: Checkpoint,
  { spec }: ModelConfig,
  { stage, options, matrices }: PlannedStage,
  kept: readonly number[],
) {
  if (stage.type !== "prune" || stage.pattern.type !== "unstructured") throw new UsageError("no global scope");
  const { method } = await pruneMethods[stage.method]();
  const { score } = method;
  if (score === undefined || method.needs(options).length > 0)
    throw new UsageError(`${stage.method} has no global scope`);
  const targets: (ScoredTensor & { layer: number })[] = [];
  for (const layer of kept) {
    for (const { map } of placesOf(spec.blocks[layer])) {
      if (!matrices.has(matrixKey(layer, map.id))) continue;
      const { rows, cols, weight: ref } = map;
      const scores = async () =>
        score({ weight: await readReference(checkpoint, ref), rows, cols }, new InputStatistics(cols, 0), options);
      targets.push({ name: map.id, layer, length: rows * cols, scores });
    }
  }
  const zeros = await shareGlobally(targets, stage.pattern.sparsity);
  const budgets: Record<string, StageBudget & { zeros: Record<string, number> }> = {};
  for (const layer of kept) budgets[layer] = { zeros: {} };
  for (const [t, { name, layer }] of targets.entries()) budgets[layer].zeros[name] = zeros[t];
  return budgets;
}

/** One threshold for the units of all blocks: how many each block keeps. Scores are those of the dense model. */
async function shareUnits(
  look: Look,
  { stage, options, matrices, gradients: differentiates }: PlannedStage,
  kept: readonly number[],
  type: UnitType,
) {
  if (stage.type !== "prune" || !("sparsity" in stage.pattern)) throw new UsageError("no global scope");
  const { method } = await pruneMethods[stage.method]();
  const needs = method.needs(options).filter((id) => !gradientStatistics.some((gradient) => gradient === id));
  const scored: (ScoredTensor & { layer: number })[] = [];
  await eachDenseBlock(look, kept, async ({ run, dense, block }) => {
    const { layer } = block;
    const isTarget = [...block.matrices.keys()].some((key) => matrices.has(matrixKey(layer, key)));
    if (!isTarget) {
      await run?.advance(dense);
      return;
    }
    // The recipe was refused if there were several: experts share no threshold.
    const [coupled] = coupledMatrices(block, type);
    const statistics = run !== undefined && needs.length > 0 ? await run.collect(dense, needs) : new Map();
    const gradients = differentiates.length > 0 ? await look.gradients!.read(layer) : undefined;
    const known = { statistics, gradients };
    const scores = scoresOfUnits(method, coupled, (matrix) => inputOf(known, matrix), options);
    scored.push({ name: String(layer), layer, length: scores.length, scores: async () => scores });
    await run?.advance(dense);
  });
  const gone = await shareGlobally(scored, stage.pattern.sparsity);
  return Object.fromEntries(
    scored.map(({ layer, length }, i): [string, StageBudget] => [String(layer), { unitsKept: length - gone[i] }]),
  );
}

/** Visits blocks of the source with the windows on their way through them, if any are run. */
async function eachDenseBlock(
  { checkpoint, plan: { description, windows }, backend, options }: Look,
  layers: readonly number[],
  visit: (at: { run: CalibrationRun | undefined; dense: LoadableBlock; block: DecoderBlock }) => Promise<void>,
): Promise<void> {
  const { config } = description;
  const { signal } = options;
  const stage = new Stage("look at the dense model", layers.length, "blocks", options.onProgress);
  const run = windows && backend && (await CalibrationRun.start(checkpoint, config.spec, backend, windows, { signal }));
  for (const layer of layers) {
    await breathe(options.signal);
    const block = await loadBlock(checkpoint, config, layer);
    await visit({ run, dense: loadable(checkpoint.location, block, block.spec), block });
    stage.advance(1, `block ${layer}`);
  }
}
