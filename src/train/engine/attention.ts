import { numpy as np } from "@jax-js/jax";
import { softcap } from "./layers.js";
import {
  add,
  columns,
  concatenate,
  divide,
  exp,
  greater,
  matmul,
  maxOfRows,
  multiply,
  negate,
  reshape,
  softmax,
  split,
  stopGradient,
  subtract,
  sumOfRows,
  type Traced,
  transpose,
  where,
} from "./ops.js";

/** cos and sin of every position and pair of columns: f32 [positions, width / 2] each. */
export interface RotaryTables {
  cos: Float32Array;
  sin: Float32Array;
}

/** Which columns of a head are turned, and which two of them together: (i, i + width / 2), or (2i, 2i + 1). */
export interface Turned {
  first: number;
  width: number;
  pairs: "halves" | "neighbours";
}

/** Turns pairs of columns of every head of x [batch, positions, heads, headDim] by the angle of its position. */
export function rotate(x: Traced, { cos, sin }: RotaryTables, { first, width, pairs }: Turned): Traced {
  const [batch, positions, heads, headDim] = x.shape;
  const end = first + width;
  const turned = first === 0 && width === headDim ? x : columns(x, first, end);
  // Neighbours lie behind one another on an axis of their own.
  const shape = pairs === "halves" ? [positions, 1, width / 2] : [positions, 1, width / 2, 1];
  const [c, s] = [cos, sin].map((table) => np.array(table as Float32Array<ArrayBuffer>, { shape }));
  const [a, b] = split(pairs === "halves" ? turned : reshape(turned, [batch, positions, heads, width / 2, 2]), 2, -1);
  const both = [add(multiply(a, c), negate(multiply(b, s))), add(multiply(b, c), multiply(a, s))];
  const result = concatenate(both, pairs === "halves" ? 3 : 4);
  if (turned === x) return pairs === "halves" ? result : reshape(result, x.shape);
  const before = first === 0 ? [] : [columns(x, 0, first)];
  const behind = end === headDim ? [] : [columns(x, end, headDim)];
  return concatenate([...before, reshape(result, [batch, positions, heads, width]), ...behind], 3);
}

/** Which keys each position sees, as what is added to its scores: f32 [positions, positions], 0 or −10⁹. */
export function causalMask(positions: number, window = positions): Float32Array<ArrayBuffer> {
  const mask = new Float32Array(positions * positions).fill(-1e9);
  for (let p = 0; p < positions; p++) mask.fill(0, p * positions + Math.max(0, p - window + 1), p * positions + p + 1);
  return mask;
}

export interface AttentionOptions {
  /** What scores are multiplied by. */
  scale: number;
  /** Scores are kept within ± this, softly, before the mask. */
  cap?: number;
  /** Added to the scores; broadcast to [batch, kvHeads, group, positions, positions]. Left out, all is seen. */
  mask?: Traced;
  /** [batch, positions, positions]: what is left of each key, which its share of the softmax is multiplied with. Left out, all. */
  left?: Traced;
  /** [queryHeads]: a score of every head that takes its share of the softmax and has no value. */
  sinks?: Traced;
}

/**
 * Softmax attention with groups of query heads that share a key head.
 * @param q [batch, positions, queryHeads, keyWidth]
 * @param k [batch, positions, kvHeads, keyWidth]
 * @param v [batch, positions, kvHeads, valueWidth]
 * @returns [batch · positions, queryHeads · valueWidth]
 */
export function attention(q: Traced, k: Traced, v: Traced, options: AttentionOptions): Traced {
  const { scale, cap, mask, left, sinks } = options;
  const [batch, positions, queryHeads, keyWidth] = q.shape;
  const [, , kvHeads, valueWidth] = v.shape;
  const group = queryHeads / kvHeads;
  const queries = reshape(transpose(q, [0, 2, 1, 3]), [batch, kvHeads, group * positions, keyWidth]);
  const products = matmul(queries, transpose(k, [0, 2, 3, 1]));
  const scaled = multiply(reshape(products, [batch, kvHeads, group, positions, positions]), scale);
  const capped = cap === undefined ? scaled : softcap(scaled, cap);
  const scores = mask === undefined ? capped : add(capped, mask);
  const weights = reshape(shares(scores, left, sinks), [batch, kvHeads, group * positions, positions]);
  const mixed = reshape(matmul(weights, transpose(v, [0, 2, 1, 3])), [batch, queryHeads, positions, valueWidth]);
  return reshape(transpose(mixed, [0, 2, 1, 3]), [batch * positions, queryHeads * valueWidth]);
}

/** The softmax of scores [batch, kvHeads, group, positions, positions], of which sinks take their part. */
function shares(scores: Traced, left?: Traced, sinks?: Traced): Traced {
  const [batch, kvHeads, group, rows, positions] = scores.shape;
  const weights = left && reshape(left, [batch, 1, 1, rows, positions]);
  if (sinks === undefined) return weighted(scores, weights);
  // A column of its own for every row; the zeros give it all axes.
  const column = add(multiply(columns(scores, 0, 1), 0), reshape(sinks, [1, kvHeads, group, 1, 1]));
  const whole = weights && concatenate([weights, add(multiply(columns(weights, 0, 1), 0), 1)], 4);
  return columns(weighted(concatenate([scores, column], 4), whole), 0, positions);
}

/** Less than any score. */
const never = -1e30;

/** weights ⊙ exp(scores), brought to sum 1: the softmax of scores + log(weights), also where a weight is 0. */
function weighted(scores: Traced, weights: Traced | undefined): Traced {
  if (weights === undefined) return softmax(scores);
  const seen = where(greater(weights, 0), scores, never);
  const shares = multiply(exp(subtract(seen, stopGradient(maxOfRows(seen)))), weights);
  return divide(shares, sumOfRows(shares));
}
