import type { LogitRows } from "./logits.js";

/**
 * Sum of the negative log likelihoods, in nats and f64, of the tokens that rows predict; perplexity is exp of its mean.
 * @param targets the token that follows each row's position; one per row
 */
export function negativeLogLikelihood({ values, rows, stride, logSumExp }: LogitRows, targets: Uint32Array): number {
  let sum = 0;
  for (let row = 0; row < rows; row++) sum += logSumExp[row] - values[row * stride + targets[row]];
  return sum;
}
