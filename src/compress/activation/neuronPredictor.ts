import { Random, UsageError } from "../../core/index.js";
import { svd } from "../linalg/index.js";

/**
 * Guesses which neurons of an MLP will be active from what enters it: score = up · (down · x) + bias, active where the score is above
 * a threshold. (DejaVu, arXiv 2310.17157; LLM in a flash, arXiv 2312.11514.)
 */
export interface NeuronPredictor {
  readonly rank: number;
  readonly inputs: number;
  readonly neurons: number;
  /** f32 [rank, inputs] */
  readonly down: Float32Array;
  /** f32 [neurons, rank] */
  readonly up: Float32Array;
  /** f32 [neurons] */
  readonly bias: Float32Array;
}

/** Wider inputs are not decomposed, which would take minutes a layer. */
const widestDecomposed = 1024;

/**
 * The best pair of its rank for the scores of the gate themselves, U·√S and √S·Vᵀ; small random numbers where the inputs are more than
 * 1024.
 * @param gate [neurons, inputs], whose product with x decides
 */
export function startPredictor(
  gate: Float32Array,
  neurons: number,
  inputs: number,
  rank: number,
  seed = 0,
): NeuronPredictor {
  if (!(Number.isSafeInteger(rank) && rank >= 1 && rank <= Math.min(neurons, inputs))) {
    throw new UsageError(`a predictor of rank ${rank} for ${neurons} neurons of ${inputs} inputs`);
  }
  const down = new Float32Array(rank * inputs);
  const up = new Float32Array(neurons * rank);
  if (inputs > widestDecomposed) {
    const random = new Random(seed);
    for (let i = 0; i < down.length; i++) down[i] = random.normal() / Math.sqrt(inputs);
    for (let i = 0; i < up.length; i++) up[i] = random.normal() / Math.sqrt(rank);
  } else {
    const { singularValues, left, right } = svd(gate, neurons, inputs);
    for (let k = 0; k < rank; k++) {
      const root = Math.sqrt(singularValues[k]);
      for (let i = 0; i < inputs; i++) down[k * inputs + i] = root * right[k * inputs + i];
      for (let n = 0; n < neurons; n++) up[n * rank + k] = root * left[k * neurons + n];
    }
  }
  return { rank, inputs, neurons, down, up, bias: new Float32Array(neurons) };
}

/** f32 [rows, rank], what lies between the two, and f32 [rows, neurons], the scores. @param x f32 [rows, inputs] */
export function predictScores(
  { rank, inputs, neurons, down, up, bias }: NeuronPredictor,
  x: Float32Array,
): { between: Float32Array; scores: Float32Array } {
  const rows = x.length / inputs;
  const between = new Float32Array(rows * rank);
  const scores = new Float32Array(rows * neurons);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < rank; k++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x[r * inputs + i] * down[k * inputs + i];
      between[r * rank + k] = sum;
    }
    for (let n = 0; n < neurons; n++) {
      let sum = bias[n];
      for (let k = 0; k < rank; k++) sum += between[r * rank + k] * up[n * rank + k];
      scores[r * neurons + n] = sum;
    }
  }
  return { between, scores };
}

/** How a predictor is trained. */
export interface PredictorTraining {
  /** Step size of Adam; default 1e-3. */
  learningRate?: number;
  /** What active neurons count more than idle ones; the share of idle ones divided by that of active ones balances the two. */
  positiveWeight?: number;
}

const [beta1, beta2, tiny] = [0.9, 0.999, 1e-8];

/** Trains a predictor by Adam on the mean binary cross-entropy of rows × neurons, by gradients that are written out. */
export class PredictorTrainer {
  #step = 0;
  readonly #moments: { first: Float32Array; second: Float32Array }[];
  readonly #parameters: Float32Array[];

  /** @param predictor whose numbers are changed */
  constructor(readonly predictor: NeuronPredictor) {
    this.#parameters = [predictor.down, predictor.up, predictor.bias];
    this.#moments = this.#parameters.map(({ length }) => ({
      first: new Float32Array(length),
      second: new Float32Array(length),
    }));
  }

  /**
   * One step on some rows.
   * @param x f32 [rows, inputs]
   * @param active [rows, neurons]: not 0 where a neuron is active
   * @returns the loss before the step
   */
  step(
    x: Float32Array,
    active: ArrayLike<number>,
    { learningRate = 1e-3, positiveWeight = 1 }: PredictorTraining = {},
  ): number {
    const { loss, gradients } = predictorGradients(this.predictor, x, active, positiveWeight);
    this.#step++;
    const [correction1, correction2] = [1 - beta1 ** this.#step, 1 - beta2 ** this.#step];
    for (const [p, values] of this.#parameters.entries()) {
      const { first, second } = this.#moments[p];
      const gradient = gradients[p];
      for (let i = 0; i < values.length; i++) {
        first[i] = beta1 * first[i] + (1 - beta1) * gradient[i];
        second[i] = beta2 * second[i] + (1 - beta2) * gradient[i] * gradient[i];
        values[i] -= (learningRate * (first[i] / correction1)) / (Math.sqrt(second[i] / correction2) + tiny);
      }
    }
    return loss;
  }
}

/** The loss, and its gradients by `down`, `up` and `bias`. */
export function predictorGradients(
  predictor: NeuronPredictor,
  x: Float32Array,
  active: ArrayLike<number>,
  positiveWeight: number,
): { loss: number; gradients: readonly [Float32Array, Float32Array, Float32Array] } {
  const { rank, inputs, neurons, up } = predictor;
  const { between, scores } = predictScores(predictor, x);
  const rows = x.length / inputs;
  const count = rows * neurons;
  const ofDown = new Float32Array(rank * inputs);
  const ofUp = new Float32Array(neurons * rank);
  const ofBias = new Float32Array(neurons);
  const ofBetween = new Float32Array(rank);
  let loss = 0;
  for (let r = 0; r < rows; r++) {
    ofBetween.fill(0);
    for (let n = 0; n < neurons; n++) {
      const at = r * neurons + n;
      const score = scores[at];
      const chance = 1 / (1 + Math.exp(-score));
      // log(1 + exp(s)), without overflow.
      const softplus = Math.max(score, 0) + Math.log1p(Math.exp(-Math.abs(score)));
      const isActive = active[at] !== 0;
      loss += isActive ? positiveWeight * (softplus - score) : softplus;
      const gradient = (isActive ? positiveWeight * (chance - 1) : chance) / count;
      ofBias[n] += gradient;
      for (let k = 0; k < rank; k++) {
        ofUp[n * rank + k] += gradient * between[r * rank + k];
        ofBetween[k] += gradient * up[n * rank + k];
      }
    }
    for (let k = 0; k < rank; k++) {
      const by = ofBetween[k];
      for (let i = 0; i < inputs; i++) ofDown[k * inputs + i] += by * x[r * inputs + i];
    }
  }
  return { loss: loss / count, gradients: [ofDown, ofUp, ofBias] };
}

/** How predictions and what came meet: counts of neurons over rows. */
export interface PredictionCounts {
  predicted: number;
  active: number;
  both: number;
  all: number;
}

/** Adds the predictions of some rows to counts. @param threshold scores above it are predicted; default 0, a chance above one half */
export function countPredictions(
  counts: PredictionCounts,
  scores: Float32Array,
  active: ArrayLike<number>,
  threshold = 0,
): void {
  for (let i = 0; i < scores.length; i++) {
    const predicted = scores[i] > threshold;
    if (predicted) counts.predicted++;
    if (active[i] !== 0) counts.active++;
    if (predicted && active[i] !== 0) counts.both++;
  }
  counts.all += scores.length;
}

/** Of the active neurons those that were predicted, of the predicted those that are active, of all those that were predicted. */
export const predictionShares = ({ predicted, active, both, all }: PredictionCounts) => ({
  recall: active === 0 ? 1 : both / active,
  precision: predicted === 0 ? 1 : both / predicted,
  predictedShare: all === 0 ? 0 : predicted / all,
});
