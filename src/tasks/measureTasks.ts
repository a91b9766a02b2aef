import type { JobOptions } from "../core/index.js";
import type { TaskRow, Variant } from "../eval/index.js";
import type { Tokenizer } from "../text/index.js";
import { evaluateTasks, type FigureOptions } from "./evaluateTasks.js";
import type { PreparedTask } from "./prepareTasks.js";
import { type ModelScorerOptions, modelScorer } from "./scoring/modelScorer.js";
import { taskRows } from "./taskRows.js";

/** What models are measured by, beside or instead of a text. */
export interface TaskMeasure extends Pick<FigureOptions, "resamples"> {
  tasks: readonly PreparedTask[];
  /** Of the models that are measured. */
  tokenizer: Tokenizer;
  /** How they are asked. */
  scorer?: ModelScorerOptions;
}

/** The figures of one model, as rows of results have them. @throws what `modelScorer` and `evaluateTasks` throw */
export async function measureTasks(
  variant: Variant,
  { tasks, tokenizer, scorer, resamples }: TaskMeasure,
  { signal, onProgress }: JobOptions = {},
): Promise<TaskRow[]> {
  const results = await evaluateTasks(modelScorer(variant, tokenizer, scorer), tasks, {
    resamples,
    signal,
    onProgress,
  });
  return taskRows(results);
}
