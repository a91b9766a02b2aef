import { logSoftmax, multiply, softmax, subtract, sum, type Traced } from "../engine/ops.js";

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
