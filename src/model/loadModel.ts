import { type ModelConfig, parseModelConfig } from "../arch/index.js";
import type { Checkpoint } from "../io/index.js";
import type { Backend } from "../kernels/index.js";
import { checkTensors } from "./checkTensors.js";
import { Decoder } from "./decoder.js";
import { loadWeights } from "./load.js";
import type { LoadModelOptions } from "./loadOptions.js";
import { blockThresholds } from "./thresholds.js";
import type { Model } from "./types.js";

/** What a checkpoint holds, known without reading weights. */
export interface DecoderDescription {
  config: ModelConfig;
}

/**
 * Reads the config and works out every tensor the decoder needs.
 * @throws FormatError for a config that is wrong or of an unknown architecture, ProblemsError with all missing or
 * mis-shaped tensors
 */
export async function describeDecoder(checkpoint: Checkpoint): Promise<DecoderDescription> {
  const description = await describeTrainable(checkpoint);
  const { config } = description;
  if (config.experts !== undefined) (await import("./checkRouting.js")).checkRouting(checkpoint, config.spec);
  return description;
}

/** As `describeDecoder`, also for experts that were trained with a routing that models do not run with. */
export async function describeTrainable(checkpoint: Checkpoint): Promise<DecoderDescription> {
  const file = `${checkpoint.location}/config.json`;
  const generation = await checkpoint.readJson("generation_config.json");
  const config = parseModelConfig(checkpoint.config, file, generation, checkpoint.artifact?.blocks);
  checkTensors(checkpoint, config);
  return { config };
}

/**
 * Loads a decoder onto a backend that holds no model yet. Weights are packed straight from the file, a few rows at a time.
 * @throws what `describeDecoder` throws and UsageError for thresholds that do not fit, before any weight is read; DeviceError
 * when the backend cannot hold the weights
 */
export async function loadModel(checkpoint: Checkpoint, backend: Backend, options: LoadModelOptions): Promise<Model> {
  const { config } = await describeDecoder(checkpoint);
  return loadDescribed(checkpoint, config, backend, options);
}

/** As `loadModel`, for a checkpoint that is known to hold every tensor of a description. */
export async function loadDescribed(
  checkpoint: Checkpoint,
  config: ModelConfig,
  backend: Backend,
  options: LoadModelOptions,
): Promise<Model> {
  const { thresholds, expertRanks } = options;
  if (thresholds !== undefined) blockThresholds(thresholds, config.spec);
  await expertRanks?.ready(config.spec);
  const weights = await loadWeights(checkpoint, backend, config.spec, options);
  return new Decoder(config, backend, options.weights, weights, thresholds);
}
