import { expect, test } from "vitest";
import { Random } from "../../core/index.js";
import {
  countPredictions,
  type NeuronPredictor,
  PredictorTrainer,
  predictionShares,
  predictorGradients,
  predictScores,
  startPredictor,
} from "./neuronPredictor.js";

const normals = (seed: number, count: number, scale = 1): Float32Array => {
  const random = new Random(seed);
  return Float32Array.from({ length: count }, () => random.normal() * scale);
};

const [inputs, neurons] = [12, 20];
const gate = normals(1, neurons * inputs, 0.4);

/** x [rows, inputs] and which neurons a gate opens for it. */
function labelled(seed: number, rows: number) {
  const x = normals(seed, rows * inputs);
  const active = new Uint8Array(rows * neurons);
  for (let r = 0; r < rows; r++) {
    for (let n = 0; n < neurons; n++) {
      let sum = -1;
      for (let i = 0; i < inputs; i++) sum += x[r * inputs + i] * gate[n * inputs + i];
      active[r * neurons + n] = sum > 0 ? 1 : 0;
    }
  }
  return { x, active };
}

const measure = (predictor: NeuronPredictor, { x, active }: ReturnType<typeof labelled>) => {
  const counts = { predicted: 0, active: 0, both: 0, all: 0 };
  countPredictions(counts, predictScores(predictor, x).scores, active);
  return predictionShares(counts);
};

test("a predictor of full rank begins with the scores of the gate", () => {
  const predictor = startPredictor(gate, neurons, inputs, inputs);
  const x = normals(2, 3 * inputs);
  const { scores } = predictScores(predictor, x);
  for (let r = 0; r < 3; r++) {
    for (let n = 0; n < neurons; n++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x[r * inputs + i] * gate[n * inputs + i];
      expect(scores[r * neurons + n]).toBeCloseTo(sum, 4);
    }
  }
  expect(() => startPredictor(gate, neurons, inputs, 13)).toThrow(/rank 13 for 20 neurons of 12 inputs/);
});

test("gradients are those of finite differences of the loss", () => {
  const predictor = startPredictor(gate, neurons, inputs, 3);
  predictor.bias.set(normals(3, neurons, 0.1));
  const { x, active } = labelled(4, 5);
  const { gradients } = predictorGradients(predictor, x, active, 2.5);
  for (const [p, values] of [predictor.down, predictor.up, predictor.bias].entries()) {
    for (const i of [0, 7, values.length - 1]) {
      const kept = values[i];
      const lossAt = (value: number) => {
        values[i] = value;
        return predictorGradients(predictor, x, active, 2.5).loss;
      };
      const slope = (lossAt(kept + 0.01) - lossAt(kept - 0.01)) / 0.02;
      values[i] = kept;
      expect(Math.abs(gradients[p][i] - slope)).toBeLessThan(2e-4 * Math.max(1, Math.abs(slope)));
    }
  }
});

test("training lowers the loss and finds more of what is active; a weight on the active ones finds more still", () => {
  const held = labelled(99, 200);
  const trained = (positiveWeight: number) => {
    const predictor = startPredictor(gate, neurons, inputs, 4);
    const trainer = new PredictorTrainer(predictor);
    const losses = Array.from({ length: 150 }, (_, s) => {
      const { x, active } = labelled(s + 5, 32);
      return trainer.step(x, active, { learningRate: 1e-2, positiveWeight });
    });
    return { shares: measure(predictor, held), losses };
  };
  const before = measure(startPredictor(gate, neurons, inputs, 4), held);
  const plain = trained(1);
  const balanced = trained(5);
  expect(plain.losses.at(-1)!).toBeLessThan(0.75 * plain.losses[0]);
  expect(plain.shares.precision).toBeGreaterThan(before.precision + 0.1);
  expect(balanced.shares.recall).toBeGreaterThan(plain.shares.recall + 0.1);
  expect(balanced.shares.predictedShare).toBeGreaterThan(plain.shares.predictedShare);
});
