import { type JobOptions, UsageError } from "../core/index.js";
import type { TaskRow, Variant } from "../eval/index.js";
import type { ModelFiles } from "../io/index.js";
import { loadChatTemplate, type Tokenizer } from "../text/index.js";
import { readTasks } from "./definition/readTasks.js";
import type { DataFolders } from "./documents/readSplit.js";
import { evaluateTasks, type FigureOptions } from "./evaluateTasks.js";
import { type PreparedTask, prepareTasks, type TaskOptions } from "./prepareTasks.js";
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

/** Which tasks, and how they are asked and counted. */
export interface TaskMeasureOptions
  extends Omit<TaskOptions, "chatTemplate">,
    Pick<TaskMeasure, "tokenizer" | "scorer" | "resamples">,
    Pick<JobOptions, "signal"> {
  /** Ask as chats, through the model's own template. */
  chat?: boolean;
}

/**
 * Reads tasks by their names in a folder, their data, and what writes their prompts.
 * @throws UsageError for a model without the chat template that is wanted; what `readTasks` and `prepareTasks` throw
 */
export async function openTaskMeasure(
  files: ModelFiles,
  folders: DataFolders,
  names: readonly string[],
  { chat, tokenizer, scorer, resamples, ...asked }: TaskMeasureOptions,
): Promise<TaskMeasure> {
  const definitions = await readTasks(folders.tasks, names);
  const chatTemplate = chat ? await loadChatTemplate(files) : undefined;
  if (chat && chatTemplate === undefined) throw new UsageError(`${files.location} has no chat template`);
  const tasks = await prepareTasks(definitions, folders, { ...asked, chatTemplate });
  return { tasks, tokenizer, scorer, resamples };
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
