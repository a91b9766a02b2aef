import {
  countPredictions,
  type NeuronPredictor,
  PredictorTrainer,
  predictionShares,
  predictScores,
  startPredictor,
} from "../compress/index.js";
import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { Model } from "../model/index.js";
import { offloadedMlp } from "../model/internal.js";

/** What predictors are and how they are trained. */
export interface TrainPredictorsOptions extends JobOptions {
  /** Default 32. */
  rank?: number;
  /** What a layer is predicted from; see `PredictorsDescription.from`. Default "own". */
  from?: "own" | "before";
  /** Whether active neurons count as much as idle ones; default true. */
  balanced?: boolean;
  /** Tokens of a window, which is one step, and windows from the start of the text. */
  window: number;
  windows: number;
  /** Passes over the windows; 0 leaves the pair that the gate's own weights give. Default 4. */
  passes?: number;
  /** Default 1e-3. */
  learningRate?: number;
  /** Scores above it are predicted when recall and precision are measured; default 0. */
  threshold?: number;
}

/** The predictor of a layer with what it finds on text that it was not trained on. */
export interface TrainedPredictor {
  readonly predictor: NeuronPredictor;
  readonly recall: number;
  readonly precision: number;
  readonly predictedShare: number;
  /** Share of hidden values that were exactly 0 on the text that was measured. */
  readonly zeroShare: number;
}

/**
 * Trains a low-rank predictor of the active neurons of every layer of a ReLU model, by the activations of the dense model, without
 * differentiating the model.
 * @param gateOf f32 [neurons, inputs], the weights that decide, of a layer
 * @param tokens to train on, @param held to measure on
 * @throws UsageError for a model whose hidden values are hardly ever 0, or a text that is too short
 */
export async function trainPredictors(
  model: Model,
  gateOf: (layer: number) => Promise<Float32Array>,
  tokens: Uint32Array,
  held: Uint32Array,
  options: TrainPredictorsOptions,
): Promise<TrainedPredictor[]> {
  const { rank = 32, from = "own", balanced = true, window, passes = 4, learningRate, threshold, signal } = options;
  const mlps = model.config.spec.blocks.map((block, layer) => {
    const mlp = offloadedMlp(block, layer);
    if (mlp !== undefined && ["relu", "relu2"].includes(mlp.activate.f)) return mlp;
    throw new UsageError(
      `layer ${layer} has no dense MLP whose hidden values are often 0 (ReLU): there is nothing to predict`,
    );
  });
  const windows = Math.min(options.windows, Math.floor(tokens.length / window));
  const heldWindows = Math.floor(held.length / window);
  if (windows < 1 || heldWindows < 1) {
    throw new UsageError(
      `texts of ${tokens.length} and ${held.length} tokens; a window of ${window} is needed of each`,
    );
  }
  const stage = new Stage(
    "train predictors",
    (passes + (balanced ? 1 : 0)) * windows + heldWindows,
    "windows",
    options.onProgress,
  );
  const predictors: NeuronPredictor[] = [];
  for (const { layer, gate } of mlps) {
    await breathe(signal);
    predictors.push(startPredictor(await gateOf(layer), gate.rows, gate.cols, rank, layer));
  }
  const trainers = predictors.map((predictor) => new PredictorTrainer(predictor));
  using cache = model.createCache(window);

  /** Runs a window and shows every layer what it is predicted from and which hidden values are not 0. */
  const run = async (
    of: Uint32Array,
    w: number,
    use: (layer: number, x: Float32Array, active: Float32Array) => void,
  ) => {
    await breathe(signal);
    let before: Float32Array | undefined;
    let entering: Float32Array | undefined;
    await model.forward(of.subarray(w * window, (w + 1) * window), cache, 0, {
      logits: "none",
      thresholds: "dense",
      tap: {
        sites: [mlps[0].first.site.id, mlps[0].down.site.id],
        async onActivation(layer, site, activation) {
          const values = await model.backend.read(activation);
          if (site === mlps[layer].first.site.id) {
            before = from === "before" && layer > 0 ? entering : values;
            entering = values;
          } else use(layer, before!, values);
        },
      },
    });
    stage.advance(1);
  };

  const positiveWeights = mlps.map(() => 1);
  if (balanced && passes > 0) {
    const counts = mlps.map(() => ({ active: 0, all: 0 }));
    for (let w = 0; w < windows; w++) {
      await run(tokens, w, (layer, _, active) => {
        for (const value of active) if (value !== 0) counts[layer].active++;
        counts[layer].all += active.length;
      });
    }
    for (const [layer, { active, all }] of counts.entries())
      positiveWeights[layer] = (all - active) / Math.max(1, active);
  }
  for (let pass = 0; pass < passes; pass++) {
    for (let w = 0; w < windows; w++) {
      await run(tokens, w, (layer, x, active) => {
        trainers[layer].step(x, active, { learningRate, positiveWeight: positiveWeights[layer] });
      });
    }
  }
  const counts = mlps.map(() => ({ predicted: 0, active: 0, both: 0, all: 0 }));
  for (let w = 0; w < heldWindows; w++) {
    await run(held, w, (layer, x, active) => {
      countPredictions(counts[layer], predictScores(predictors[layer], x).scores, active, threshold);
    });
  }
  return predictors.map((predictor, layer) => {
    const { active, all } = counts[layer];
    return { predictor, ...predictionShares(counts[layer]), zeroShare: 1 - active / all };
  });
}
