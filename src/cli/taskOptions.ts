import { stat } from "node:fs/promises";
import { dirname, relative, resolve, sep } from "node:path";
import { Option } from "commander";
import { quote, UsageError } from "../core/index.js";
import type { ModelFiles } from "../io/index.js";
import { type DataFolders, type ModelScorerOptions, openTaskMeasure, type TaskMeasure } from "../tasks/index.js";
import { taskFolder } from "../tasks/index.node.js";
import type { Context } from "./command.js";
import { integer, number } from "./numbers.js";
import { openTokenizer } from "./tokenizer.js";

/** Which tasks a model is measured by, and how they are asked. */
export interface TaskCommandOptions {
  tasks?: string[];
  taskFolder?: string;
  taskData?: string;
  shots?: number;
  taskLimit?: number;
  taskSeed?: number;
  resamples?: number;
  chatTemplate?: boolean;
}

export const taskOptions = (): Option[] => [
  new Option(
    "--tasks <task...>",
    "also measure by tasks in the format of lm-evaluation-harness: files, folders of them, or names in --task-folder",
  ),
  new Option("--task-folder <dir>", "where tasks are looked for by name, and what their files may include"),
  new Option(
    "--task-data <dir>",
    "data sets as JSONL or Parquet, in folders of their names (default: beside the tasks)",
  ),
  new Option("--shots <n>", "examples in front of each question (default: what the task says, else 0)").argParser(
    integer({ min: 0, max: 1000 }),
  ),
  new Option("--task-limit <n>", "documents of each task from its start; below 1 a share of them").argParser(
    number({ min: 0.000001, max: 1e9 }),
  ),
  new Option("--task-seed <n>", "draws the examples, as lm-evaluation-harness does (default: 1234)").argParser(
    integer({ min: 0 }),
  ),
  new Option(
    "--resamples <n>",
    "resamples for standard errors of figures that are no means, 0 for none (default: 100000)",
  ).argParser(integer({ min: 0, max: 1e7 })),
  new Option("--chat-template", "ask as chats, each example a turn"),
];

/**
 * Reads the tasks of the command line, their data, and what writes their prompts.
 * @returns undefined where none are named
 * @throws UsageError for options of tasks without any
 */
export async function readTaskMeasure(
  context: Pick<Context, "signal" | "warn">,
  files: ModelFiles,
  options: TaskCommandOptions,
  scorer?: ModelScorerOptions,
): Promise<TaskMeasure | undefined> {
  const {
    tasks,
    taskFolder: given,
    taskData,
    shots,
    taskLimit: limit,
    taskSeed: seed,
    resamples,
    chatTemplate,
  } = options;
  if (tasks === undefined) {
    const unused = Object.entries({
      "task-folder": given,
      "task-data": taskData,
      shots,
      "task-limit": limit,
      resamples,
      "chat-template": chatTemplate,
    });
    const named = unused.find(([, value]) => value !== undefined);
    if (named !== undefined) throw new UsageError(`--${named[0]} belongs to --tasks`);
    return undefined;
  }
  const { folder, wanted } = await whereTasksAre(tasks, given);
  const own = taskFolder(folder);
  const folders: DataFolders = { tasks: own, ...(taskData !== undefined && { data: await dataFolder(taskData) }) };
  const how = { shots, limit, seed, chat: chatTemplate, scorer, resamples, signal: context.signal };
  return await openTaskMeasure(files, folders, wanted, { ...how, tokenizer: await openTokenizer(context, files) });
}

async function dataFolder(path: string) {
  if (!(await stat(path).catch(() => undefined))?.isDirectory())
    throw new UsageError(`--task-data ${quote(path)} is no folder`);
  return taskFolder(path);
}

/** The folder that holds all that is named, and what is named within it. */
export async function whereTasksAre(
  tasks: readonly string[],
  given: string | undefined,
): Promise<{ folder: string; wanted: string[] }> {
  if (given !== undefined) {
    if (!(await stat(given).catch(() => undefined))?.isDirectory())
      throw new UsageError(`--task-folder ${quote(given)} is no folder`);
    return { folder: given, wanted: [...tasks] };
  }
  const places: string[] = [];
  for (const task of tasks) {
    const found = await stat(task).catch(() => undefined);
    if (found === undefined) {
      throw new UsageError(`--tasks ${quote(task)} is no file or folder; to find it by its name give --task-folder`);
    }
    places.push(resolve(task));
  }
  const parts = await Promise.all(
    places.map(async (place) => ((await stat(place)).isDirectory() ? place : dirname(place))),
  );
  let folder = parts[0];
  for (const part of parts) while (part !== folder && !part.startsWith(folder + sep)) folder = dirname(folder);
  return { folder, wanted: places.map((place) => relative(folder, place).split(sep).join("/") || ".") };
}
