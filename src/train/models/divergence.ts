import {
  divide,
  exp,
  greaterEqual,
  logSoftmax,
  maximum,
  mean,
  multiply,
  square,
  subtract,
  sum,
  type Traced,
  where,
} from "../engine/ops.js";
import type { DivergenceId } from "./distillation.js";

/** KL(softmax(a / T) ‖ softmax(b / T)) · T² of every row. */
function kullbackLeibler(a: Traced, b: Traced, temperature: number): Traced {
  const at = (logits: Traced) => multiply(logits, 1 / temperature);
  const logA = logSoftmax(at(a));
  const surprise = subtract(logA, logSoftmax(at(b)));
  return multiply(sum(multiply(exp(logA), surprise), 1), temperature * temperature);
}

/** ½·(mean d² − (mean d)²) of every row. */
const halfVariance = (d: Traced): Traced => multiply(subtract(mean(square(d), 1), square(mean(d, 1))), 0.5);

/** The mean over rows. @param labels int32 [rows]: where they are below 0, a row does not count; all count without them */
export function meanOverKnown(values: Traced, labels?: Traced): Traced {
  if (labels === undefined) return mean(values);
  const known = where(greaterEqual(labels, 0), 1, 0);
  return divide(sum(multiply(values, known)), maximum(sum(known), 1));
}

/** Each of logits f32 [rows, vocabSize], by row: f32 [rows]. With p of the teacher and q of the student, both at T: */
export const divergences: Readonly<
  Record<DivergenceId, (student: Traced, teacher: Traced, temperature: number) => Traced>
> = {
  /**
   * T²·KL(p ‖ q) (Hinton, Vinyals, Dean 2015, arXiv:1503.02531): the student covers all that the teacher holds possible. Gradient
   * in the student's logits T·(q − p).
   */
  kl: (student, teacher, temperature) => kullbackLeibler(teacher, student, temperature),
  /**
   * T²·KL(q ‖ p): the student keeps to what the teacher holds likely (the term of single steps in Gu et al. 2023, MiniLLM,
   * arXiv:2306.08543). Gradient T·q·(log(q / p) − KL(q ‖ p)).
   */
  "reverse-kl": (student, teacher, temperature) => kullbackLeibler(student, teacher, temperature),
  /** ½·mean (z − z')² of logits less their means over the vocabulary: what kl · vocabSize becomes for T → ∞. */
  logits: (student, teacher) => halfVariance(subtract(student, teacher)),
};
