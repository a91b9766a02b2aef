import { isLabel } from "../engine/layers.js";
import { add, exp, logSoftmax, multiply, reshape, subtract, sum, type Traced, where } from "../engine/ops.js";

/** Arrays of a batch that `miniLlmLoss` reads, traced. */
export interface Written {
  drawn: Traced;
  importance: Traced;
  returns: Traced;
  /** The teacher's logits. */
  teacher: Traced;
}

/**
 * A scalar whose gradient is that of the reverse KL of whole texts by policy gradient (Gu et al. 2023, MiniLLM, arXiv:2306.08543):
 * Σ over the tokens drawn of w·(KL(q ‖ p) − R·log q(token)), the mean over texts; without `singleStep`, without the KL.
 * @param logits of the student, f32 [rows, vocabSize]
 * @param texts how many were written
 */
export function miniLlmLoss(
  logits: Traced,
  { drawn, importance, returns, teacher }: Written,
  texts: number,
  singleStep: boolean,
): Traced {
  const [rows, vocabSize] = logits.shape;
  const logQ = logSoftmax(logits);
  const column = (x: Traced) => reshape(x, [rows, 1]);
  const isDrawn = isLabel(drawn, vocabSize);
  const long = sum(where(isDrawn, multiply(logQ, column(multiply(importance, returns))), 0));
  if (!singleStep) return multiply(long, -1 / texts);
  // Importance is 0 where nothing was drawn.
  const divergence = multiply(exp(logQ), subtract(logQ, logSoftmax(teacher)));
  const single = sum(multiply(divergence, column(importance)));
  return multiply(add(single, multiply(long, -1)), 1 / texts);
}
