import { type JobOptions, UsageError } from "../core/index.js";
import { type LocalModelFiles, openCheckpoint } from "../io/index.js";
import { isModelFile, pickReference } from "../io/internal.js";
import {
  describeDecoder,
  offloadBytesName,
  offloadDescriptionName,
  type PredictorsDescription,
  predictorsWeightsName,
  writePredictors,
} from "../model/index.js";
import { offloadedMlp } from "../model/internal.js";
import { openModel, type TrainedPredictor, type TrainPredictorsOptions, trainPredictors } from "../pipeline/index.js";
import type { TokenizedText } from "../text/index.js";
import { writeBesideWeights } from "./besideWeights.js";

/** How predictors are trained, and on what. */
export interface PredictToDirectoryOptions extends TrainPredictorsOptions {
  /** Text to train on. */
  text: TokenizedText;
  /** Text to measure on; default: the last twentieth of the windows, which then are not trained on. */
  evaluation?: TokenizedText;
  threads?: number;
  /** Replace what another command has left. */
  force?: boolean;
}

/** What was trained and how good it is, by layer. */
export interface PredictedDirectory {
  output: string;
  model: string;
  rank: number;
  from: PredictorsDescription["from"];
  /** Bytes of all predictors in memory. */
  byteLength: number;
  layers: readonly Omit<TrainedPredictor, "predictor">[];
}

/**
 * Trains predictors of the active neurons of a ReLU model and writes a model directory that has them beside the same weights.
 * @throws UsageError for a model without a ReLU, or a text that is too short; BusyError, StorageError
 */
export async function predictToDirectory(
  files: LocalModelFiles,
  output: string,
  options: PredictToDirectoryOptions,
): Promise<PredictedDirectory> {
  const { text, evaluation, threads, force, signal, onProgress, ...training } = options;
  const { rank = 32, from = "own", window } = training;
  if (rank % 4 !== 0) throw new UsageError(`a rank of ${rank}; it must be a multiple of 4`);
  const job: JobOptions = { signal, onProgress };
  const all = Math.min(training.windows, Math.floor(text.tokens.length / window));
  const heldWindows = evaluation === undefined ? Math.max(1, Math.round(all / 20)) : 0;
  const windows = all - heldWindows;
  const held = evaluation?.tokens ?? text.tokens.subarray(windows * window, all * window);
  const checkpoint = await openCheckpoint(files);
  try {
    const { config } = await describeDecoder(checkpoint);
    const settings = { ...training, evaluation: evaluation?.sha256 };
    const making = { command: "predict", force, text: async () => text, settings, ...job };
    const trained = await writeBesideWeights(files, output, making, async (builder) => {
      using opened = await openModel(files, { threads, ...job });
      const gateOf = async (layer: number): Promise<Float32Array> => {
        const { gate } = offloadedMlp(config.spec.blocks[layer], layer)!;
        return pickReference(await checkpoint.readFloat32(gate.weight.tensor), gate.weight);
      };
      const trained = await trainPredictors(opened.model, gateOf, text.tokens, held, { ...training, windows, ...job });
      const beside = [offloadDescriptionName, offloadBytesName];
      await builder.takeOver(
        files,
        (name) => name !== predictorsWeightsName && (isModelFile(name) || beside.includes(name)),
      );
      const description: PredictorsDescription = {
        predictors: 1,
        rank,
        from,
        textSha256: text.sha256,
        layers: trained.map(({ recall, precision, predictedShare }) => ({ recall, precision, predictedShare })),
      };
      const predictors = { description, layers: trained.map(({ predictor }) => predictor) };
      await writePredictors(builder.sinks, builder.add, predictors, job);
      return trained;
    });
    const byteLength = trained.reduce(
      (sum, { predictor: { down, up, bias } }) => sum + 4 * (down.length + up.length + bias.length),
      0,
    );
    const layers = trained.map(({ predictor: _, ...measured }) => measured);
    return { output, model: files.location, rank, from, byteLength, layers };
  } finally {
    await checkpoint.close();
  }
}
