import type { ActivationFunction } from "../../core/index.js";
import {
  absolute,
  add,
  column,
  divide,
  equal,
  erf,
  greater,
  greaterEqual,
  logSoftmax,
  matmul,
  maximum,
  mean,
  meanOfRows,
  multiply,
  range,
  reshape,
  sort,
  sqrt,
  square,
  stopGradient,
  subtract,
  sum,
  sumOfRows,
  type Traced,
  tanh,
  transpose,
  where,
} from "./ops.js";

/** x [n, in] · Wᵀ for W [out, in]. */
export const linear = (x: Traced, weight: Traced): Traced => matmul(x, transpose(weight));

/** Without the overflow of 1 / (1 + e⁻ˣ), whose gradient is NaN at −100 in f32. */
export const sigmoid = (x: Traced): Traced => multiply(0.5, add(1, tanh(multiply(0.5, x))));

/** With gradient 0 at 0; the engine's own has 1 there. */
export const relu = (x: Traced): Traced => where(greater(x, 0), x, 0);

const geluTanh = (x: Traced): Traced =>
  multiply(
    multiply(0.5, x),
    add(1, tanh(multiply(Math.sqrt(2 / Math.PI), add(x, multiply(0.044715, multiply(x, square(x))))))),
  );

/** Every activation, to be trained through. */
export const activations: Readonly<Record<ActivationFunction, (x: Traced) => Traced>> = {
  silu: (x) => multiply(x, sigmoid(x)),
  relu,
  relu2: (x) => square(relu(x)),
  gelu: (x) => multiply(multiply(0.5, x), add(1, erf(multiply(Math.SQRT1_2, x)))),
  geluTanh,
};

/** cap · tanh(x / cap) */
export const softcap = (x: Traced, cap: number): Traced => multiply(cap, tanh(multiply(1 / cap, x)));

/** At most `limit`, where no gradient flows any more. */
export const atMost = (x: Traced, limit: number): Traced => where(greater(x, limit), limit, x);
/** Within ±limit. */
export const clamp = (x: Traced, limit: number): Traced => where(greater(-limit, x), -limit, atMost(x, limit));

/** x / √(mean x² + ε) ∘ weight over the last axis. */
export const rmsNorm = (x: Traced, weight: Traced, epsilon: number): Traced =>
  multiply(divide(x, sqrt(add(meanOfRows(square(x)), epsilon))), weight);

/** (x − mean) / √(variance + ε) ∘ weight (+ bias) over the last axis. */
export function layerNorm(x: Traced, weight: Traced, bias: Traced | undefined, epsilon: number): Traced {
  const centred = subtract(x, meanOfRows(x));
  const scaled = multiply(divide(centred, sqrt(add(meanOfRows(square(centred)), epsilon))), weight);
  return bias === undefined ? scaled : add(scaled, bias);
}

/** 1 where row i of `labels` [n] names column j, else 0: boolean [n, classes]. */
export const isLabel = (labels: Traced, classes: number): Traced =>
  equal(reshape(labels, [-1, 1]), reshape(range(classes), [1, classes]));

/** Mean over rows of −log softmax(logits)[label]; logits [n, classes], labels int32 [n]. */
export function crossEntropy(logits: Traced, labels: Traced): Traced {
  const [rows, classes] = logits.shape;
  // A gather here would need a scatter in its gradient, which the engine cannot compile after a fused product.
  return multiply(sum(where(isLabel(labels, classes), logSoftmax(logits), 0)), -1 / rows);
}

/** As `crossEntropy`, the mean over the rows whose label is not below 0; 0 where there is none. */
export function maskedCrossEntropy(logits: Traced, labels: Traced): Traced {
  const [rows] = logits.shape;
  const known = maximum(sum(where(greaterEqual(labels, 0), 1, 0)), 1);
  return divide(multiply(crossEntropy(logits, labels), rows), known);
}

export const meanSquaredError = (predicted: Traced, wanted: Traced): Traced =>
  mean(square(subtract(reshape(predicted, [-1]), reshape(wanted, [-1]))));

/**
 * Keeps the entries of each row whose magnitude is at least that of its K-th largest, K = density · width, and brings the row
 * back to the length it had, so that what follows sees the same scale at every K (after Q-Sparse, arXiv:2407.10969, which
 * brings it to length 1). The gradient passes as if nothing had been cut (straight-through).
 */
export function largestInputs(x: Traced, density: number): Traced {
  const width = x.shape[x.shape.length - 1];
  const count = Math.max(1, Math.round(density * width));
  if (count >= width) return x;
  const magnitude = stopGradient(absolute(x));
  const sparse = where(greaterEqual(magnitude, column(sort(magnitude, -1), width - count)), x, 0);
  const kept = add(x, stopGradient(subtract(sparse, x)));
  const length = (v: Traced) => sqrt(add(sumOfRows(square(v)), 1e-12));
  return multiply(kept, stopGradient(divide(length(x), length(sparse))));
}
