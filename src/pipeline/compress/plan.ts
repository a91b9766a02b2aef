import { distinctBlocks, isTied } from "../../arch/index.js";
import { placesOf } from "../../arch/internal.js";
import { checkRecipe, gradientStatistics, type Recipe, type ResolvedStage } from "../../compress/index.js";
import { ProblemsError, quote } from "../../core/index.js";
import { type Checkpoint, fingerprint, sha256Hex } from "../../io/index.js";
import { isWhole } from "../../io/internal.js";
import { type Backend, type BackendInfo, openBackend } from "../../kernels/index.js";
import { openDevice } from "../../kernels/internal.js";
import { type DecoderDescription, describeDecoder } from "../../model/index.js";
import { storedMap } from "../../model/internal.js";
import type { GradientSource } from "../gradients.js";
import { drawLabelled, drawWindows } from "./drawWindows.js";
import { tokenPieces } from "./embedding.js";
import { estimateJob } from "./estimate.js";
import {
  type CompressionPlan,
  type CompressOptions,
  differentiates,
  masksByGradients,
  type PlannedStage,
} from "./planned.js";
import { stageHandlers } from "./stages/index.js";
import type { StageHandler } from "./stages/stage.js";
import { stores } from "./storeBlock.js";
import { targetMatrices } from "./targets.js";
import { partsOf } from "./unitMasks/parts.js";

/** What can be said of a job without running anything. */
interface CheckedJob extends Pick<CompressionPlan, "description" | "drop" | "stages" | "embedding"> {
  /** Windows of text have to be run. */
  needsText: boolean;
}

/**
 * Whether recipe, model and text go together.
 * @throws FormatError for a model that cannot be read, ProblemsError with everything else that stands in the way
 */
export async function checkCompression(
  checkpoint: Checkpoint,
  options: Pick<CompressOptions, "recipe" | "calibration" | "labelled" | "gradients" | "store">,
): Promise<CheckedJob> {
  const { recipe, calibration, labelled, store = stores[0] } = options;
  const description = await describeDecoder(checkpoint);
  const problems: string[] = [];
  if (!stores.includes(store)) problems.push(`store is ${stores.join(" or ")}, not ${quote(store)}`);
  const resolved = await resolve(checkpoint, description, recipe, problems);
  const embedding = resolved.find(({ stage }) => stage.type === "embedding");
  const drop = recipe.stages.find((stage) => stage.type === "dropLayers");
  const stages = await planStages(resolved, recipe, calibration !== undefined);
  const needsText =
    drop?.method === "influence" ||
    masksByGradients(stages) ||
    stages.some(({ statistics, gradients }) => statistics.length + gradients.length > 0);
  if (needsText && calibration === undefined && labelled === undefined)
    problems.push("the recipe needs a calibration text (`calibration`), and none is given");
  const { window, windows: count } = recipe.calibration;
  const { maxPositions } = description.config;
  if (needsText && window > maxPositions) {
    problems.push(`windows of ${window} tokens for a model of ${maxPositions} positions`);
  }
  if (needsText && calibration !== undefined && calibration.tokens.length < count * window) {
    problems.push(
      `${count} windows of ${window} tokens are ${count * window}, and ${calibration.name ?? "the calibration text"} has ${calibration.tokens.length}: ` +
        "give a longer text, fewer windows (`windows`) or smaller ones (`window`)",
    );
  }
  problems.push(...gradientProblems(stages, drop, options.gradients));
  problems.push(...labelProblems(description, stages, options));
  problems.push(...maskProblems(description, stages));
  const inFactors = description.config.spec.blocks
    .flatMap((block) => placesOf(block).map(({ map }) => storedMap(map, checkpoint.tensors)))
    .filter(({ lowRank, factors }) => lowRank !== undefined || factors !== undefined)
    .map(({ map }) => map.weight.tensor);
  const { table } = description.config.spec.embedding;
  if (checkpoint.tensors.get(table.tensor)?.factors !== undefined) inFactors.push(table.tensor);
  if (inFactors.length > 0) {
    const which = inFactors.length === 1 ? inFactors[0] : `${inFactors[0]} and ${inFactors.length - 1} more`;
    problems.push(`in factors already: ${which}; rarefy export --format safetensors multiplies them out`);
  }
  if (distinctBlocks(description.config.spec).length < description.config.layers)
    problems.push("layers share their weights: rarefy export --format safetensors gives each its own");
  if (embedding !== undefined && needsText) {
    problems.push("what is measured on a text would be measured with the embedding as it was: compress that by itself");
  }
  if (recipe.stages.filter(({ type }) => type === "embedding").length > 1) problems.push("one stage for the embedding");
  refuse(problems);
  return { description, drop, stages, embedding, needsText };
}

/** Gradients are those of the source: what has changed before a stage that reads them would make them wrong. */
function gradientProblems(
  stages: readonly PlannedStage[],
  drop: CheckedJob["drop"],
  source: GradientSource | undefined,
): string[] {
  if (!differentiates(stages) && !masksByGradients(stages)) return [];
  if (source === undefined) return ["the recipe needs gradients of the loss, and nothing that computes them is given"];
  const problems: string[] = [];
  if (drop !== undefined) problems.push("gradients are those of the whole model: drop layers in a recipe of its own");
  const changed = new Set<string>();
  for (const { index, matrices, gradients } of stages) {
    if (gradients.length > 0 && [...matrices].some((matrix) => changed.has(matrix))) {
      problems.push(
        `stage ${index + 1} needs gradients, which are those of the source, at matrices that a stage before it changes: let it come first`,
      );
    }
    for (const matrix of matrices) changed.add(matrix);
  }
  return problems;
}

/** What classifies learns from labelled texts, and only masks read those. */
function labelProblems(
  { config }: DecoderDescription,
  stages: readonly PlannedStage[],
  { recipe, labelled }: Pick<CompressOptions, "recipe" | "labelled">,
): string[] {
  const { head } = config.spec;
  const classifies = head.kind === "classifier";
  if (labelled === undefined) {
    return masksByGradients(stages) && classifies
      ? [
          "the masks of a model that classifies need labelled texts: a file with the header label<tab>text (`calibration`)",
        ]
      : [];
  }
  if (!classifies) return ["labelled texts are for models that classify; give a plain text"];
  const problems: string[] = [];
  if (!masksByGradients(stages) || stages.some(({ statistics, gradients }) => statistics.length + gradients.length > 0))
    problems.push("only masks of units (the method fisher) read labelled texts; give a plain text");
  const { windows } = recipe.calibration;
  if (labelled.texts.length < windows) {
    problems.push(`${windows} texts are asked for (\`windows\`), and there are ${labelled.texts.length}`);
  }
  const unknown = labelled.labels.find((label) => !(label >= 0 && label < head.labels.length));
  if (unknown !== undefined) problems.push(`class ${unknown} of a text, and the model has ${head.labels.length}`);
  return problems;
}

/** Factors are found for what attention and MLP add to the stream, one after the other. */
function maskProblems({ config }: DecoderDescription, stages: readonly PlannedStage[]): string[] {
  const { blocks, head } = config.spec;
  if (!masksByGradients(stages)) return [];
  if (head.kind === "none") return ["a model without a head has no loss that masks could be chosen by"];
  return stages.flatMap(({ index, stage }) =>
    stage.type === "maskUnits" &&
    stage.method === "fisher" &&
    (stage.tune || stage.latency !== undefined) &&
    blocks.some((b) => !partsOf(b))
      ? [
          `stage ${index + 1}: attention and MLP of this model do not add to the stream one after the other, as tuning and a budget of time need it: tune: false and macs`,
        ]
      : [],
  );
}

/**
 * Checks a job as a whole and says what it will take. One window is run through one block to learn how fast this machine
 * is.
 * @throws FormatError for a model that cannot be read, ProblemsError with everything else that stands in the way
 */
export async function planCompression(checkpoint: Checkpoint, options: CompressOptions): Promise<CompressionPlan> {
  const { recipe, calibration, labelled, limits = {} } = options;
  const { description, drop, stages, embedding, needsText } = await checkCompression(checkpoint, options);
  const windows = needsText
    ? labelled === undefined
      ? drawWindows(calibration!.tokens, recipe)
      : drawLabelled(labelled, recipe)
    : undefined;
  using opened = needsText ? await openChosen(options) : undefined;
  const backend = opened?.info;
  const plan = {
    description,
    drop,
    stages,
    embedding,
    layers: description.config.layers - (drop?.count ?? 0),
    windows,
    backend,
    ...(await identify(checkpoint, options, backend, differentiates(stages) || masksByGradients(stages))),
  };
  const estimate = await estimateJob(checkpoint, plan, opened, options);
  const problems: string[] = [];
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toPrecision(2)} GB`;
  const check = (what: string, needed: number, free: number | undefined, hint: string) => {
    if (free === undefined || needed <= free) return;
    problems.push(`about ${gigabytes(needed)} of ${what} are needed and ${gigabytes(free)} are free${hint}`);
  };
  check("memory", estimate.memoryBytes, limits.memoryBytes, windows === undefined ? "" : "; take fewer windows");
  check("disk", estimate.diskBytes, limits.diskBytes, "");
  refuse(problems);
  return { ...plan, estimate };
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new ProblemsError("this job cannot be done", problems);
}

async function resolve(
  { tensors, files }: Pick<Checkpoint, "tensors" | "files">,
  { config }: DecoderDescription,
  recipe: Recipe,
  problems: string[],
): Promise<ResolvedStage[]> {
  const { spec } = config;
  const { table } = spec.embedding;
  const [rows, cols] = table.shape;
  const embedding = isWhole(table) &&
    tensors.get(table.tensor)?.factors === undefined && {
      ...{ rows, cols, tied: isTied(spec) },
      pieces: await tokenPieces({ files }, recipe.stages, rows),
    };
  try {
    return await checkRecipe(recipe, {
      matrices: targetMatrices(config),
      blocks: config.blocks,
      ...(embedding && { embedding }),
    });
  } catch (error) {
    if (!(error instanceof ProblemsError)) throw error;
    problems.push(...error.problems);
    return [];
  }
}

async function planStages(
  resolved: readonly ResolvedStage[],
  recipe: Recipe,
  hasText: boolean,
): Promise<PlannedStage[]> {
  const planned: PlannedStage[] = [];
  for (const [index, { stage, options, matrices }] of resolved.entries()) {
    if (stage.type === "dropLayers" || stage.type === "embedding") continue;
    const handler = stageHandlers[stage.type] as StageHandler;
    const statistics = new Set(await handler.needs({ stage, options, matrices }));
    if (hasText && recipe.calibration.measureError && handler.approximates) statistics.add("gram");
    const gradients = gradientStatistics.filter((id) => statistics.delete(id));
    planned.push({
      stage,
      options,
      matrices: new Set(matrices),
      index,
      handler,
      statistics: [...statistics],
      gradients,
    });
  }
  return planned;
}

/** @throws UsageError, DeviceError */
function openChosen({ device, backend, threads }: CompressOptions): Promise<Backend> {
  const options = threads === undefined ? {} : { threads };
  return backend === undefined ? openDevice(device, options) : openBackend(backend, options);
}

/** The backend that a job was planned for; undefined where no windows are run. @throws UsageError, DeviceError */
export async function openPlanned(
  { backend }: CompressionPlan,
  options: CompressOptions,
): Promise<Backend | undefined> {
  return backend && (await openChosen({ ...options, backend: backend.id }));
}

async function identify(
  checkpoint: Checkpoint,
  options: CompressOptions,
  backend: BackendInfo | undefined,
  differentiates: boolean,
) {
  const { recipe, store = stores[0], dtype, version } = options;
  const { configSha256, weightsSha256 } = options.fingerprint ?? (await fingerprint(checkpoint, options));
  const job = await sha256Hex(
    JSON.stringify({
      version,
      recipe,
      config: configSha256,
      weights: weightsSha256,
      text: backend === undefined ? null : textOf(options),
      storage: [store, dtype ?? null],
      // Sums come out a little different elsewhere: a job begun on one device is not finished on another.
      arithmetic: backend?.arithmetic ?? null,
      ...(differentiates && { gradients: options.gradients!.arithmetic }),
    }),
  );
  return { job, configSha256 };
}

function textOf({ calibration, labelled }: CompressOptions): string {
  if (labelled !== undefined) return `${labelled.sha256} labelled ${labelled.texts.map(({ length }) => length)}`;
  return calibration!.sha256 + (calibration!.windowsBegin ? " bos" : "");
}
