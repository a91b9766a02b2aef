import type { Random } from "../../core/index.js";
import { activations, crossEntropy, linear, meanSquaredError, sigmoid } from "../engine/layers.js";
import { add, type Traced } from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import type { FloatArray, ParameterInfo, SharedUnits } from "../values.js";

export interface MlpConfig {
  /** Widths from input to output: [1, 200, 300, 1]. */
  widths: readonly number[];
  activation: "sigmoid" | "relu";
  /** "regression": mean squared error to `target`; "classification": cross entropy to int32 `label`. */
  task: "regression" | "classification";
}

const weightName = (layer: number) => `layers.${layer}.weight`;
const biasName = (layer: number) => `layers.${layer}.bias`;

/** A multi-layer perceptron; batches hold `input` [n, in] and `target` [n] or `label` [n]. */
export function mlp({ widths, activation, task }: MlpConfig): TracedModel {
  const layers = widths.length - 1;
  const parameters: ParameterInfo[] = [];
  for (let l = 0; l < layers; l++) {
    const role = l === 0 || l === layers - 1 ? "outer" : "inner";
    const neurons = (layer: number, axis: "rows" | "columns"): SharedUnits[] =>
      layer === 0 || layer === layers ? [] : [{ type: "neurons", group: String(layer), axis, count: widths[layer] }];
    const shared = [...neurons(l + 1, "rows"), ...neurons(l, "columns")];
    parameters.push({ name: weightName(l), shape: [widths[l + 1], widths[l]], layer: String(l), role, shared });
    parameters.push({ name: biasName(l), shape: [widths[l + 1]], layer: String(l), role: "dense" });
  }
  const activate = activation === "sigmoid" ? sigmoid : activations.relu;

  const predict = (weights: TracedArrays, { input }: TracedArrays): Traced => {
    let x = input;
    for (let l = 0; l < layers; l++) {
      x = add(linear(x, weights[weightName(l)]), weights[biasName(l)]);
      if (l < layers - 1) x = activate(x);
    }
    return x;
  };
  return {
    parameters,
    predict,
    loss: (weights, batch) => ({
      loss:
        task === "regression"
          ? meanSquaredError(predict(weights, batch), batch.target)
          : crossEntropy(predict(weights, batch), batch.label),
    }),
  };
}

/** Weights and biases uniform in ±1/√in, as PyTorch's Linear begins. */
export function initialMlp(parameters: readonly ParameterInfo[], random: Random): Map<string, FloatArray> {
  const values = new Map<string, FloatArray>();
  let bound = 1;
  for (const { name, shape } of parameters) {
    if (shape.length === 2) bound = 1 / Math.sqrt(shape[1]);
    values.set(
      name,
      Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => (2 * random.uniform() - 1) * bound),
    );
  }
  return values;
}
