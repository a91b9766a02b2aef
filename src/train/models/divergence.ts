import { exp, logSoftmax, mean, multiply, square, subtract, sum, type Traced } from "../engine/ops.js";
import type { DivergenceId } from "./distillation.js";

/** KL(softmax(a / T) ‖ softmax(b / T)) · T², the mean over rows. */
function kullbackLeibler(a: Traced, b: Traced, temperature: number): Traced {
  const [rows] = a.shape;
  const at = (logits: Traced) => multiply(logits, 1 / temperature);
  const logA = logSoftmax(at(a));
  const surprise = subtract(logA, logSoftmax(at(b)));
  return multiply(sum(multiply(exp(logA), surprise)), (temperature * temperature) / rows);
}

/** ½·(mean d² − mean (mean of a row of d)²): half the variance within rows. */
function halfVariance(d: Traced): Traced {
  const [, columns] = d.shape;
  const ofRows = multiply(sum(d, 1), 1 / columns);
  return multiply(subtract(mean(square(d)), mean(square(ofRows))), 0.5);
}

/** Each of logits f32 [rows, vocabSize]; a scalar, the mean over rows. With p of the teacher and q of the student, both at T: */
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
