import { logSoftmax, multiply, softmax, subtract, sum, type Traced } from "../engine/ops.js";

/** Learning from the predictions of another model besides the text. */
export interface Distillation {
  /** Weight η of what the teacher says; 1 − η is that of the text. */
  share: number;
  /** Divides the logits of both: above 1, unlikely tokens count for more. */
  temperature: number;
}

/** Name of the teacher's logits in a batch: f32 [tokens, vocabSize]. Without them the text alone is learnt. */
export const teacherName = "teacher";

/**
 * T²·KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over rows (Hinton, Vinyals, Dean 2015, arXiv:1503.02531). Its
 * gradient in the student's logits is T·(softmax(student / T) − softmax(teacher / T)) over the rows.
 */
export function divergence(student: Traced, teacher: Traced, temperature: number): Traced {
  const [rows] = student.shape;
  const at = (logits: Traced) => multiply(logits, 1 / temperature);
  const surprise = subtract(logSoftmax(at(teacher)), logSoftmax(at(student)));
  return multiply(sum(multiply(softmax(at(teacher)), surprise)), (temperature * temperature) / rows);
}
