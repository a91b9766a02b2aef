import { breathe, type JobOptions, Stage } from "../core/index.js";
import { type Checkpoint, type FileSinks, type ModelConfig, writeSafetensors } from "../io/index.js";
import { architectures, decoderLayout, layoutTensors } from "../model/index.js";
import { fromFloat32 } from "../tensor/index.js";
import type { TokenWindows } from "./data/tokens.js";
import type { Objective } from "./objective.js";
import type { FloatArray, ParameterInfo, Values } from "./values.js";

/** The tensors that a model of this config has, before there is a checkpoint. */
export async function tensorsOfConfig(config: ModelConfig): Promise<{ name: string; shape: readonly number[] }[]> {
  const { architecture } = await architectures[config.modelType]();
  return layoutTensors(decoderLayout(config, architecture.traits(config)));
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

export type StoredFloat = "F32" | "F16" | "BF16";

/** Writes trained weights as a checkpoint. @param dtypeOf stored type by name */
export function writeWeights(
  sinks: FileSinks,
  parameters: readonly ParameterInfo[],
  weights: Values,
  dtypeOf: (name: string) => StoredFloat,
  options: JobOptions = {},
): Promise<void> {
  const tensors = parameters.map(({ name, shape }) => {
    const dtype = dtypeOf(name);
    return { name, shape, dtype, bytes: () => [fromFloat32(dtype, weights.get(name) as Float32Array)] };
  });
  return writeSafetensors(sinks, tensors, options);
}

/** Mean negative log likelihood over windows in their order; the convention of `rarefy eval`, but that windows meet. */
export async function meanLoss(
  objective: Objective,
  weights: Values,
  windows: TokenWindows,
  maxWindows: number,
  { signal, onProgress }: JobOptions = {},
): Promise<number> {
  const batches = [...windows.inOrder(maxWindows)];
  const stage = new Stage("evaluate", batches.length, "batches", onProgress);
  let sum = 0;
  for (const batch of batches) {
    await breathe(signal);
    sum += await objective.loss(weights, batch);
    stage.advance(1);
  }
  return sum / batches.length;
}
