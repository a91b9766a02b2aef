import { join } from "node:path";
import { Option } from "commander";
import type { TaskRow, Variant } from "../eval/index.js";
import { makeDirectory, writeFileAtomic } from "../io/index.node.js";
import { packageVersion } from "../jobs/internal.js";
import { evaluateTasks, modelScorer, resultDocument, sampleLines, type TaskMeasure, taskRows } from "../tasks/index.js";
import type { Context } from "./command.js";
import type { TaskCommandOptions } from "./taskOptions.js";

/** Files in lm-evaluation-harness' layout. */
export interface TaskOutputOptions {
  taskOutput?: string;
  taskSamples?: string;
}

export const taskOutputOptions = (): Option[] => [
  new Option("--task-output <file>", "write the figures of the tasks as lm-evaluation-harness writes its results"),
  new Option("--task-samples <dir>", "write what was asked and answered, a file for each task"),
];

/** The figures of a model, told of and written to the files that are named. */
export async function measureTasksInDetail(
  context: Context,
  variant: Variant,
  { tasks, tokenizer, scorer: asked, resamples }: TaskMeasure,
  options: TaskCommandOptions & TaskOutputOptions,
): Promise<TaskRow[]> {
  const { signal, onProgress } = context;
  const started = { date: Date.now() / 1000, ms: performance.now() };
  const scorer = modelScorer(variant, tokenizer, asked);
  const results = await evaluateTasks(scorer, tasks, { resamples, signal, onProgress });
  const elapsedMs = performance.now() - started.ms;
  const { tokensRun, tokensAlone } = scorer.work;
  context.note(`${variant.name}: ${tokensRun} tokens run for the tasks, ${tokensAlone} if each were run alone`);
  const { model, attention, kv, thresholds } = variant;
  if (options.taskOutput !== undefined) {
    const document = resultDocument(results, {
      model: variant.name,
      modelArgs: {
        weights: model.weights,
        backend: model.backend.info.id,
        sparse: thresholds !== undefined,
        ...(attention && { attention: attention.text }),
        ...(kv && { kv: kv.text }),
      },
      version: packageVersion(),
      date: started.date,
      elapsedMs,
      chat: options.chatTemplate === true,
      limit: options.taskLimit,
      seed: options.taskSeed,
      resamples,
    });
    await writeFileAtomic(options.taskOutput, new TextEncoder().encode(`${JSON.stringify(document, undefined, 2)}\n`));
  }
  if (options.taskSamples !== undefined) {
    await makeDirectory(options.taskSamples);
    for (const result of results) {
      const name = `samples_${result.task.name.replace(/[^A-Za-z0-9._-]/g, "_")}.jsonl`;
      await writeFileAtomic(join(options.taskSamples, name), new TextEncoder().encode(await sampleLines(result)));
    }
  }
  return taskRows(results);
}
