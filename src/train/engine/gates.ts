import { sigmoid } from "./layers.js";
import {
  absolute,
  add,
  divide,
  equal,
  exp,
  greater,
  log1p,
  maximum,
  mean,
  meanOfRows,
  multiply,
  negate,
  range,
  reshape,
  sqrt,
  square,
  stopGradient,
  subtract,
  sum,
  type Traced,
  where,
} from "./ops.js";

/** x / √(mean(x²) + epsilon) of every row: what a gate looks at. */
export const unitRows = (x: Traced, epsilon: number): Traced => divide(x, sqrt(add(meanOfRows(square(x)), epsilon)));

/** Which of z are above 0: 1 or 0, without a gradient. */
export const aboveZero = (z: Traced): Traced => stopGradient(where(greater(z, 0), 1, 0));

/**
 * Which of z [texts, positions] are among the `share` · positions largest of their text: 1 or 0, without a gradient; of equals the first.
 * @param share scalar
 */
export function largestOfText(z: Traced, share: Traced): Traced {
  const [texts, positions] = z.shape;
  const [own, other] = [reshape(z, [texts, positions, 1]), reshape(z, [texts, 1, positions])];
  const at = [reshape(range(positions), [1, positions, 1]), reshape(range(positions), [1, 1, positions])];
  const first = where(greater(at[0], at[1]), where(equal(other, own), 1, 0), 0);
  const rank = sum(add(where(greater(other, own), 1, 0), first), 2);
  return stopGradient(where(greater(multiply(share, positions), rank), 1, 0));
}

/** The values of `hard`, with the gradient of the logistic function of z (straight through). */
export function straightThrough(hard: Traced, z: Traced): Traced {
  const soft = sigmoid(z);
  return add(hard, subtract(soft, stopGradient(soft)));
}

/** Mean cross-entropy, in nats, of the logistic function of z with 0 or 1. */
export function binaryCrossEntropy(z: Traced, wanted: Traced): Traced {
  const softplus = add(maximum(z, 0), log1p(exp(negate(absolute(z)))));
  return mean(subtract(softplus, multiply(wanted, z)));
}

/**
 * What positions see of keys of which some are not there: [texts, positions, positions]. Each sees its own.
 * @param open [texts, positions]: 1 where there is a key
 */
export function keysThere(open: Traced): Traced {
  const [texts, positions] = open.shape;
  const [row, column] = [reshape(range(positions), [1, positions, 1]), reshape(range(positions), [1, 1, positions])];
  const own = where(equal(row, column), 1, 0);
  return add(multiply(reshape(open, [texts, 1, positions]), subtract(1, own)), own);
}
