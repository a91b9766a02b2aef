import { breathe, type JobOptions, UsageError } from "../core/index.js";
import { sha256Hex } from "../io/index.js";
import type { TaskDefinition } from "./definition/task.js";
import type { Document } from "./documents/document.js";
import { type DataFolders, readSplit } from "./documents/readSplit.js";
import { type DrawExamples, exampleDrawer } from "./requests/examples.js";
import type { PromptOptions } from "./requests/prompt.js";
import { type Question, questionOf } from "./requests/requests.js";

/** What of each task is asked, and how. */
export interface TaskOptions extends PromptOptions {
  /** Examples in front of each question; default what the task's file says, else 0. Tasks whose file says 0 keep that. */
  shots?: number;
  /** Draws the examples. Default 1234, as in lm-evaluation-harness. */
  seed?: number;
  /** Documents of each task from its start; a number below 1 is a share of them. Default: all. */
  limit?: number;
}

/** A task with the questions that are made of its documents. */
export interface PreparedTask {
  task: TaskDefinition;
  /** Examples in front of each question. */
  shots: number;
  /** In the split, and asked. */
  documents: { all: number; asked: number };
  questions: readonly Question[];
  /** SHA-256 over all that is asked: results of equal ones can be compared document by document. */
  sha256: string;
}

/**
 * Reads the documents of tasks and writes the prompts, with the examples that lm-evaluation-harness would draw.
 * @throws FormatError for files and documents that do not fit, UsageError for options that do not
 */
export async function prepareTasks(
  tasks: readonly TaskDefinition[],
  folders: DataFolders,
  options: TaskOptions & Pick<JobOptions, "signal"> = {},
): Promise<PreparedTask[]> {
  if (tasks.length === 0) throw new UsageError("no tasks");
  const prepared: PreparedTask[] = [];
  for (const task of tasks) {
    const splits = new Splits(task, folders);
    const all = await splits.asked();
    const documents = all.slice(0, countOf(options.limit, all.length));
    const { shots, draw } = await examplesOf(task, splits, options);
    const questions: Question[] = [];
    for (const [i, document] of documents.entries()) {
      if (i % 64 === 0) await breathe(options.signal);
      questions.push(questionOf(task, document, draw, options));
    }
    const counts = { all: all.length, asked: documents.length };
    prepared.push({ task, shots, documents: counts, questions, sha256: await hashOf(task, questions) });
  }
  return prepared;
}

function countOf(limit: number | undefined, all: number): number {
  if (limit === undefined) return all;
  if (!(limit > 0) || (limit >= 1 && !Number.isInteger(limit))) throw new UsageError(`a limit of ${limit} documents`);
  return limit < 1 ? Math.ceil(all * limit) : limit;
}

/** The documents of a task by split, each read once. */
class Splits {
  readonly #read = new Map<string, Document[]>();

  constructor(
    readonly task: TaskDefinition,
    readonly folders: DataFolders,
  ) {}

  /** As they are in their file. */
  async #raw(split: string): Promise<Document[]> {
    let documents = this.#read.get(split);
    if (documents === undefined) {
      documents = await readSplit(this.folders, this.task.place, split);
      this.#read.set(split, documents);
    }
    return documents;
  }

  async of(split: string, process: ((document: Document) => Document) | undefined): Promise<Document[]> {
    const documents = await this.#raw(split);
    return process === undefined ? documents : documents.map(process);
  }

  /** Those of the test, else of the validation split. */
  asked(): Promise<Document[]> {
    const { test, validation } = this.task.splits;
    const split = test ?? validation;
    if (split === undefined) throw new UsageError(`${this.task.file} names neither test_split nor validation_split`);
    return this.of(split, this.task.process);
  }

  /** Where examples come from. */
  examples(): Promise<Document[]> {
    const { splits, examples, process } = this.task;
    if (examples.split !== undefined) return this.of(examples.split, examples.process);
    if (examples.documents !== undefined) return Promise.resolve([...examples.documents]);
    return this.of((splits.training ?? splits.validation ?? splits.test)!, process);
  }
}

async function examplesOf(
  task: TaskDefinition,
  splits: Splits,
  { shots: wanted, seed = 1234 }: TaskOptions,
): Promise<{ shots: number; draw: DrawExamples }> {
  const rolling = task.outputType === "loglikelihood_rolling";
  const count = task.shots === 0 || rolling ? 0 : (wanted ?? task.shots ?? 0);
  if (!(Number.isSafeInteger(count) && count >= 0)) throw new UsageError(`${count} examples`);
  const pool = count === 0 ? [] : await splits.examples();
  const { split, sampler } = task.examples;
  const leaveOut = split === task.splits.test;
  return { shots: count, draw: exampleDrawer(pool, { count, sampler, seed, leaveOut, task: task.file }) };
}

/** Over prompts, continuations and what is right. */
function hashOf(task: TaskDefinition, questions: readonly Question[]): Promise<string> {
  const asked = questions.map(({ continuations, text, prompt, target }) => [
    continuations.map(({ context, continuation }) => [context, continuation]),
    text,
    prompt,
    target,
  ]);
  return sha256Hex(JSON.stringify([task.name, task.outputType, task.generation, asked]));
}
