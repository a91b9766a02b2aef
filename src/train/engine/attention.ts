import { numpy as np } from "@jax-js/jax";
import { add, concatenate, matmul, multiply, negate, reshape, softmax, split, type Traced, transpose } from "./ops.js";

/** cos and sin of every position and pair of a head: f32 [positions, headDim / 2] each. */
export interface RotaryTables {
  cos: Float32Array<ArrayBuffer>;
  sin: Float32Array<ArrayBuffer>;
}

/** Turns pair i, i + headDim / 2 of x [batch, positions, heads, headDim] by the angle of its position. */
export function rotate(x: Traced, { cos, sin }: RotaryTables): Traced {
  const [, positions, , headDim] = x.shape;
  const shape = [positions, 1, headDim / 2];
  const c = np.array(cos, { shape });
  const s = np.array(sin, { shape });
  const [a, b] = split(x, 2, -1);
  return concatenate([add(multiply(a, c), negate(multiply(b, s))), add(multiply(b, c), multiply(a, s))], 3);
}

/** Which keys each position sees, as what is added to its scores: f32 [positions, positions], 0 or −10⁹. */
export function causalMask(positions: number, window = positions): Float32Array<ArrayBuffer> {
  const mask = new Float32Array(positions * positions).fill(-1e9);
  for (let p = 0; p < positions; p++) mask.fill(0, p * positions + Math.max(0, p - window + 1), p * positions + p + 1);
  return mask;
}

/**
 * Softmax attention with groups of query heads that share a key head.
 * @param q [batch, positions, queryHeads, headDim]
 * @param k [batch, positions, kvHeads, headDim], and v alike
 * @param mask added to the scores; broadcast to [batch, kvHeads, group, positions, positions]
 * @returns [batch · positions, queryHeads · headDim]
 */
export function attention(q: Traced, k: Traced, v: Traced, mask: Traced): Traced {
  const [batch, positions, queryHeads, headDim] = q.shape;
  const kvHeads = k.shape[2];
  const group = queryHeads / kvHeads;
  const queries = reshape(transpose(q, [0, 2, 1, 3]), [batch, kvHeads, group * positions, headDim]);
  const products = matmul(queries, transpose(k, [0, 2, 3, 1]));
  const scores = add(
    multiply(reshape(products, [batch, kvHeads, group, positions, positions]), 1 / Math.sqrt(headDim)),
    mask,
  );
  const weights = reshape(softmax(scores), [batch, kvHeads, group * positions, positions]);
  const mixed = reshape(matmul(weights, transpose(v, [0, 2, 1, 3])), [batch, queryHeads, positions, headDim]);
  return reshape(transpose(mixed, [0, 2, 1, 3]), [batch * positions, queryHeads * headDim]);
}
