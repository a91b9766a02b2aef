import { type ModelConfig, type NamedShape, parseModelConfig, tensorsOf } from "../arch/index.js";
import { breathe, type JobOptions, NonFiniteError, ProblemsError, Stage } from "../core/index.js";
import { type Checkpoint, type FileSinks, writeSafetensors } from "../io/index.js";
import { describeDecoder } from "../model/index.js";
import { firstNonFinite, fromFloat32 } from "../tensor/index.js";
import type { TokenWindows } from "./data/tokens.js";
import type { BatchControl, Objective } from "./objective.js";
import type { FloatArray, ParameterInfo, Values } from "./values.js";

const shownProblems = 20;

/**
 * The config of a checkpoint that can be trained, its tensors checked: what the runtime runs, and mixtures of experts.
 * @throws FormatError for a config that is wrong, ProblemsError with missing or mis-shaped tensors
 */
export async function trainableConfig(checkpoint: Checkpoint): Promise<ModelConfig> {
  const file = `${checkpoint.location}/config.json`;
  const config = parseModelConfig(checkpoint.config, file, undefined, checkpoint.artifact?.blocks);
  if (config.experts === undefined) return (await describeDecoder(checkpoint)).config;
  const problems: string[] = [];
  for (const { name, shape } of tensorsOf(config.spec)) {
    const found = checkpoint.tensors.get(name)?.shape;
    if (found?.join() === shape.join()) continue;
    problems.push(
      `${name} is ${found === undefined ? "missing" : `[${found.join(", ")}]`}; expected [${shape.join(", ")}]`,
    );
    if (problems.length === shownProblems) break;
  }
  if (problems.length > 0) {
    throw new ProblemsError(`${checkpoint.location}: the tensors do not fit a ${config.modelType} model`, problems);
  }
  return config;
}

/** Reads the trainable tensors of a checkpoint as f32. */
export async function readWeights(
  checkpoint: Checkpoint,
  parameters: readonly ParameterInfo[],
  { signal, onProgress }: JobOptions = {},
): Promise<Map<string, FloatArray>> {
  const stage = new Stage("read weights", parameters.length, "tensors", onProgress);
  const weights = new Map<string, FloatArray>();
  for (const { name } of parameters) {
    await breathe(signal);
    weights.set(name, await checkpoint.readFloat32(name));
    stage.advance(1, name);
  }
  return weights;
}

/** Types that trained weights are stored in, by their names in safetensors. */
export type StoredFloat = "F32" | "F16" | "BF16";

/**
 * Writes trained weights as a checkpoint.
 * @param dtypeOf stored type by name
 * @throws NonFiniteError before anything is written
 */
export function writeWeights(
  sinks: FileSinks,
  parameters: readonly NamedShape[],
  weights: Values,
  dtypeOf: (name: string) => StoredFloat,
  options: JobOptions = {},
): Promise<void> {
  const tensors = parameters.map(({ name, shape }) => {
    const dtype = dtypeOf(name);
    const bad = firstNonFinite(dtype, fromFloat32(dtype, weights.get(name) as Float32Array));
    if (bad >= 0) {
      throw new NonFiniteError(
        `${name}: entry ${bad} is ${weights.get(name)![bad]} after training, which cannot be stored as ${dtype}; nothing was written`,
      );
    }
    return { name, shape, dtype, bytes: () => [fromFloat32(dtype, weights.get(name) as Float32Array)] };
  });
  return writeSafetensors(sinks, tensors, options);
}

/**
 * Mean negative log likelihood over windows in their order; the convention of `rarefy eval`, but that windows meet.
 * @param control steers the model through its batches, as in training
 */
export async function meanLoss(
  objective: Objective,
  weights: Values,
  windows: TokenWindows,
  maxWindows: number,
  { signal, onProgress, control }: JobOptions & { control?: BatchControl } = {},
): Promise<number> {
  const batches = [...windows.inOrder(maxWindows)];
  const stage = new Stage("evaluate", batches.length, "batches", onProgress);
  let sum = 0;
  for (const batch of batches) {
    await breathe(signal);
    sum += await objective.loss(weights, { ...batch, ...control?.arrays() });
    stage.advance(1);
  }
  return sum / batches.length;
}
