import { findStep, type ModelConfig, parseModelConfig, tensorsOf } from "../arch/index.js";
import { type JobOptions, UsageError } from "../core/index.js";
import {
  type Artifact,
  type Checkpoint,
  type LocalModelFiles,
  openCheckpoint,
  readJsonFile,
  type TensorDeclaration,
  trainingOf,
} from "../io/index.js";
import { factorNames, routingOf } from "../model/internal.js";
import {
  type ContextPruningSettings,
  type FloatArray,
  gatedConfig,
  initialGates,
  initialInteractions,
  initialWeights,
  type LayerGates,
  type ModelParameter,
  nothingDropped,
  prunableConfig,
  readWeights,
  type StoredFloat,
  type TrainedMixture,
  trainableConfig,
} from "../train/index.js";
import { extendedParameters, randomFor } from "../train/internal.js";
import { mixtureOf, type RouterSettings } from "./trainingSettings.js";

/** A language model in memory, ready to be trained or to teach. */
export interface TrainableModel {
  files: LocalModelFiles;
  config: ModelConfig;
  parameters: readonly ModelParameter[];
  weights: Map<string, FloatArray>;
  /** Those that give what the model gave before: where training begins with something new. Default: `weights`. */
  before?: ReadonlyMap<string, FloatArray>;
  /** Stored type by name of a tensor. */
  dtypeOf: (tensor: string) => StoredFloat;
  /** How tensors of the source lie in its files, where that is not entry by entry. */
  declarations: Readonly<Record<string, TensorDeclaration>>;
  /** Sizes of the blocks where they differ from those of the config. */
  blocks?: Artifact["blocks"];
  /** How tokens find their experts, in a model that has them. */
  mixture?: TrainedMixture;
}

/** What decides which tensors are trained. */
export type ModelSettings = RouterSettings & {
  contextPruning?: ContextPruningSettings;
  gates?: LayerGates;
  seed?: number;
};

/** Reads the weights of a checkpoint as f32, and what its routers have learnt. @throws FormatError, ProblemsError */
export async function loadTrainable(
  files: LocalModelFiles,
  settings: ModelSettings,
  { check, ...job }: JobOptions & { check?: (config: ModelConfig) => void },
): Promise<TrainableModel> {
  const checkpoint = await openCheckpoint(files);
  try {
    const own = await trainableConfig(checkpoint);
    const { contextPruning, gates, seed = 0 } = settings;
    const prunable = contextPruning === undefined ? own : prunableConfig(own, contextPruning);
    const config = gates === undefined ? prunable : gatedConfig(prunable, gates);
    // Weights may be many, and are read last.
    check?.(config);
    const { parameters, had, added } = extendedParameters(own.spec, config.spec, checkpoint.tensors);
    const trained = checkpoint.artifact && trainingOf(checkpoint.artifact)?.router;
    const mixture = mixtureOf(config, settings, trained ?? routingOf(config.spec));
    const dtypes = new Map(Array.from(checkpoint.tensors, ([name, { dtype }]) => [name, dtype as StoredFloat]));
    const declarations = checkpoint.artifact?.tensors ?? {};
    for (const { ref, part } of parameters) {
      const declared = part && declarations[part.of];
      if (declared?.encoding === "factors") dtypes.set(ref.tensor, declared.values);
    }
    for (const [name, values] of mixture?.tensors ?? []) {
      if (checkpoint.tensors.has(name)) values.set(await checkpoint.readFloat32(name));
    }
    const weights = await readWeights(checkpoint, had, job);
    const begun = contextPruning
      ? initialInteractions(added, contextPruning, seed)
      : gates && initialGates(added, gates, seed);
    const merged = (more: ReadonlyMap<string, FloatArray> | undefined) =>
      new Map(parameters.map(({ name }) => [name, (more?.get(name) ?? weights.get(name))!]));
    return {
      files,
      config,
      parameters,
      weights: merged(begun),
      ...(begun && { before: merged(nothingDropped(added, begun)) }),
      dtypeOf: (tensor) => dtypes.get(tensor) ?? "F32",
      declarations,
      blocks: config === own ? checkpoint.artifact?.blocks : [...config.blocks],
      mixture,
    };
  } finally {
    await checkpoint.close();
  }
}

/** A model of the config's shape whose weights are drawn by the seed. */
export async function randomModel(
  files: LocalModelFiles,
  options: RouterSettings & { seed: number },
  gates: LayerGates | undefined,
): Promise<TrainableModel> {
  const own = parseModelConfig(await readJsonFile(files, "config.json"), `${files.location}/config.json`);
  const config = gates === undefined ? own : gatedConfig(own, gates);
  const { parameters, had, added } = extendedParameters(own.spec, config.spec);
  const begun = new Map([
    ...initialWeights(had, randomFor(options.seed, "weights")),
    ...(gates ? initialGates(added, gates, options.seed) : []),
  ]);
  return {
    files,
    config,
    parameters,
    weights: new Map(parameters.map(({ name }) => [name, begun.get(name)!])),
    ...(gates && { blocks: [...config.blocks] }),
    mixture: mixtureOf(config, options),
    dtypeOf: () => "F32",
    declarations: {},
  };
}

/**
 * A model whose weights stay in its files, and are decoded from there block by block.
 * @param checkpoint stays open as long as the model is used
 * @throws UsageError for what is trained whole only
 */
export async function streamedModel(files: LocalModelFiles, checkpoint: Checkpoint): Promise<TrainableModel> {
  const config = await trainableConfig(checkpoint);
  if (config.spec.blocks.some((block) => findStep(block, "mixture") !== undefined))
    throw new UsageError("experts are trained whole: leave `stream` out");
  const pair = tensorsOf(config.spec).find(({ name }) => checkpoint.tensors.has(factorNames(name).left));
  if (pair !== undefined)
    throw new UsageError(`${pair.name} is a pair of low rank, which is multiplied out in memory: leave \`stream\` out`);
  return { files, config, parameters: [], weights: new Map(), dtypeOf: () => "F32", declarations: {} };
}
