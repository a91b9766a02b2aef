/// <reference lib="esnext.disposable" preserve="true" />
export { readTasks } from "./definition/readTasks.js";
export type { OutputType } from "./definition/schema.js";
export type { TaskDefinition } from "./definition/task.js";
export type { Document } from "./documents/document.js";
export type { DataFolders } from "./documents/readSplit.js";
export {
  evaluateTasks,
  type FigureOptions,
  type TaskFigure,
  type TaskResult,
  type TaskSample,
} from "./evaluateTasks.js";
export { measureTasks, openTaskMeasure, type TaskMeasure, type TaskMeasureOptions } from "./measureTasks.js";
export { type BleuCounts, bleu, bleuCounts, bleuSignature } from "./metrics/bleu.js";
export { type ChrfCounts, chrf, chrfCounts } from "./metrics/chrf.js";
export { type Labels, macroF1, matthewsCorrelation } from "./metrics/classification.js";
export { answerF1, answersMatch, type Overlap, type RougeType, rouge } from "./metrics/overlap.js";
export { type PreparedTask, prepareTasks, type TaskOptions } from "./prepareTasks.js";
export { type RunFacts, resultDocument, sampleLines } from "./resultDocument.js";
export { type ModelScorerOptions, modelScorer } from "./scoring/modelScorer.js";
export type { PromptRequest, Scorer, ScoringWork } from "./scoring/scorer.js";
export { memoryTaskFiles, type TaskFiles } from "./taskFiles.js";
export { taskRows } from "./taskRows.js";
