import { basename } from "node:path";
import type { ResultRow } from "../eval/index.js";
import type { LocalModelFiles } from "../io/index.js";
import { evaluateOverQueue, jobModelOf, jobPath, openBullQueue, tokensSha256 } from "../jobs/index.js";
import type { Context } from "./command.js";
import type { EvalOptions } from "./evalOptions.js";
import { queueModel, queueText, refuseWithQueue } from "./queueOptions.js";
import { readTokens } from "./session.js";
import { readTaskMeasure, whereTasksAre } from "./taskOptions.js";

/** What is measured of the text, as the command has worked it out. */
type Cut = Pick<EvalOptions, "window" | "stride" | "maxWindows" | "promptTokens"> &
  Required<Pick<EvalOptions, "convention">> & { maxTokens?: number };

/**
 * The row of `rarefy eval --queue`: the text is a job, and each argument of --tasks is one.
 * @throws UsageError for what workers do not do or cannot find
 */
export async function evaluationOverQueue(
  context: Context,
  argument: string,
  files: LocalModelFiles,
  options: EvalOptions,
  { convention, window, stride, maxWindows, promptTokens, maxTokens }: Cut,
): Promise<ResultRow> {
  const { against, sparsity, exits, adapter, experts, expertRanks, structure, residentBytes, predict } = options;
  const { taskOutput, taskSamples, text, bos, prefill, attention, kv, weights, device } = options;
  refuseWithQueue({
    ...{ against, sparsity, exits, adapter, experts, predict },
    structure: structure === "auto" ? undefined : structure,
    ...{ "expert-ranks": expertRanks, "resident-bytes": residentBytes },
    ...{ "task-output": taskOutput, "task-samples": taskSamples },
  });
  const place = queueModel(argument);
  await using queue = await openBullQueue(options.queue!, context);
  const tokens = text === undefined ? undefined : await readTokens(context, files, text, { maxTokens });
  return await evaluateOverQueue({
    queue,
    name: basename(files.location),
    model: await jobModelOf(files, place, context),
    text: tokens && {
      ...{ path: queueText(text!), maxTokens, tokensSha256: await tokensSha256(tokens) },
      ...{ convention, window, stride, maxWindows, promptTokens },
    },
    tasks: await tasksOf(context, files, options),
    ...{ bos, prefill, attention: attention?.text, kv: kv?.text, weights, device },
    signal: context.signal,
  });
}

/** Every argument of --tasks as workers find it, with what is asked. */
async function tasksOf(context: Context, files: LocalModelFiles, options: EvalOptions) {
  const {
    tasks,
    taskFolder,
    taskData,
    shots,
    taskLimit: limit,
    taskSeed: seed,
    chatTemplate: chat,
    resamples,
  } = options;
  // Says which options belong to tasks where none are named.
  if (tasks === undefined) await readTaskMeasure(context, files, options);
  const { folder, wanted } = tasks === undefined ? { folder: ".", wanted: [] } : await whereTasksAre(tasks, taskFolder);
  const found = [];
  for (const name of wanted) {
    const measure = await readTaskMeasure(context, files, { ...options, tasks: [name], taskFolder: folder });
    found.push({
      ...{ folder: jobPath(folder), data: taskData === undefined ? undefined : jobPath(taskData), name },
      ...{ shots, limit, seed, chat, resamples },
      asked: measure!.tasks.map(({ sha256 }) => sha256),
    });
  }
  return found;
}
