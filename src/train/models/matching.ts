import { linear } from "../engine/layers.js";
import {
  add,
  divide,
  exp,
  logSoftmax,
  matmul,
  mean,
  multiply,
  reshape,
  square,
  subtract,
  sum,
  type Traced,
  transpose,
} from "../engine/ops.js";

/**
 * Mean squared difference of x·Pᵀ from what the teacher has (FitNets: Romero et al. 2015, arXiv:1412.6550; over all blocks: TinyBERT,
 * Jiao et al. 2020, arXiv:1909.10351), a scalar.
 * @param x of the student, f32 [rows, width]
 * @param teacher f32 [rows, teacher's width]
 * @param projection P, f32 [teacher's width, width]; left out where the widths are the same
 * @param relative divide by the mean square of what the teacher has: 1 is as good as knowing nothing
 */
export function stateDifference(x: Traced, teacher: Traced, projection: Traced | undefined, relative: boolean): Traced {
  const seen = projection === undefined ? x : linear(x, projection);
  const difference = mean(square(subtract(seen, teacher)));
  return relative ? divide(difference, add(mean(square(teacher)), 1e-12)) : difference;
}

/** How vectors are cut to be related. */
export interface RelationShape {
  sequences: number;
  heads: number;
  /** Added to the scores: which tokens are seen. */
  mask: Traced | undefined;
}

/**
 * KL(teacher ‖ student) of how tokens relate to the tokens that they see: the softmax of x·xᵀ/√width within every head, the mean
 * over heads and tokens (MiniLMv2: Wang et al. 2021, arXiv:2012.15828). The widths of the two may differ.
 * @param student queries, keys or values, f32 [rows, width]
 * @param teacher the same of the teacher, f32 [rows, width of its own]
 */
export function relationDivergence(student: Traced, teacher: Traced, shape: RelationShape): Traced {
  const logP = relationsOf(teacher, shape);
  const surprise = subtract(logP, relationsOf(student, shape));
  const rows = student.shape[0] * shape.heads;
  return multiply(sum(multiply(exp(logP), surprise)), 1 / rows);
}

/** Logarithms, f32 [sequences, heads, window, window]. */
function relationsOf(x: Traced, { sequences, heads, mask }: RelationShape): Traced {
  const [rows, width] = x.shape;
  const cut = transpose(reshape(x, [sequences, rows / sequences, heads, width / heads]), [0, 2, 1, 3]);
  const scores = multiply(matmul(cut, transpose(cut, [0, 1, 3, 2])), 1 / Math.sqrt(width / heads));
  return logSoftmax(mask === undefined ? scores : add(scores, mask));
}
