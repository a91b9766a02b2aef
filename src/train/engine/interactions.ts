import { numpy as np } from "@jax-js/jax";
import {
  absolute,
  add,
  concatenate,
  floor,
  greater,
  integers,
  matmul,
  multiply,
  range,
  reshape,
  stopGradient,
  subtract,
  sum,
  type Traced,
  take,
  transpose,
  where,
} from "./ops.js";

/** σ_α of |s| at equal steps from 0 on, f32 [entries], and how many of them lie in a unit; behind the last it is 1. */
export interface SigmoidTable {
  readonly values: Traced;
  readonly perUnit: Traced;
}

/** Between two entries of the table along a straight line, whose slope is the gradient. */
function sigmoidAlpha(s: Traced, { values, perUnit }: SigmoidTable): Traced {
  const last = values.shape[0] - 1;
  const at = multiply(absolute(s), perUnit);
  const inside = where(greater(last, at), at, 0);
  const before = stopGradient(floor(inside));
  const index = integers(before);
  const [low, high] = [take(values, index), take(values, add(index, 1))];
  const along = add(low, multiply(subtract(high, low), subtract(inside, before)));
  const upper = where(greater(last, at), along, 1);
  return where(greater(s, 0), upper, subtract(1, upper));
}

/**
 * What is left of earlier positions (Anagnostidis et al. 2023, arXiv 2305.15805): I[k, j] = Π σ_α(q_n · k_j / √r + bias) over
 * the positions n in (j, k]; 1 where k ≤ j.
 * @param q [batch, positions, r] @param bias [1] @param table without one, the step function: kept where the argument is above 0
 * @returns [batch, positions, positions]
 */
export function contextLeft(q: Traced, k: Traced, bias: Traced, table: SigmoidTable | undefined): Traced {
  const [batch, positions, rank] = q.shape;
  const products = matmul(q, transpose(k, [0, 2, 1]));
  const s = add(multiply(products, 1 / Math.sqrt(rank)), bias);
  const kept = table === undefined ? stopGradient(where(greater(s, 0), 1, 0)) : sigmoidAlpha(s, table);
  let left = where(later(positions), kept, 1);
  // Products of 2, 4, 8 … rows that end in each row.
  for (let shift = 1; shift < positions; shift *= 2) {
    const none = np.ones([batch, shift, positions]);
    const above = left.ref.slice([], [0, positions - shift], []);
    left = multiply(left, concatenate([none, above], 1));
  }
  return left;
}

/** The mean share of earlier positions that later ones see. @param left of `contextLeft` */
export function shareLeft(left: Traced): Traced {
  const [batch, positions] = left.shape;
  const pairs = (batch * positions * (positions - 1)) / 2;
  return multiply(sum(where(later(positions), left, 0)), 1 / pairs);
}

/** Whether row n stands behind column j: boolean [1, positions, positions]. */
const later = (positions: number): Traced =>
  greater(reshape(range(positions), [1, positions, 1]), reshape(range(positions), [1, 1, positions]));
