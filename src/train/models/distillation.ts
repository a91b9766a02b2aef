import type { ModelSpec } from "../../arch/index.js";
import type { ParameterInfo, Values } from "../values.js";
import type { MiniLlmOptions } from "./miniLlmOptions.js";
import type { RouterOptions } from "./routerOptions.js";

/** How far what a student predicts is from what its teacher does: see `divergences`. */
export const divergenceIds = ["kl", "reverse-kl", "logits"] as const;
/** "kl", "reverse-kl" or "logits". */
export type DivergenceId = (typeof divergenceIds)[number];

/** What a teacher is followed by: a divergence at every token of the text, or reverse KL of texts that the student writes. */
export const distillationIds = [...divergenceIds, "minillm"] as const;
/** "kl", "reverse-kl", "logits" or "minillm". */
export type DistillationId = (typeof distillationIds)[number];

/** Learning from the predictions of another model besides the text. */
export interface Distillation {
  /** Weight η of what the teacher says; 1 − η is that of the text. */
  share: number;
  /** Divides the logits of both: above 1, unlikely tokens count for more. */
  temperature: number;
  /** What is made small. Default "kl". */
  loss?: DistillationId;
  /** Of "minillm". */
  miniLlm?: MiniLlmOptions;
}

/** A model that teaches: it does not change. */
export interface TeacherModel {
  spec: ModelSpec;
  parameters: readonly ParameterInfo[];
  weights: Values;
  /** How its experts are chosen. */
  router?: RouterOptions;
}

/** Name of the teacher's logits in a batch: f32 [tokens, vocabSize]. Without them the text alone is learnt. */
export const teacherName = "teacher";
