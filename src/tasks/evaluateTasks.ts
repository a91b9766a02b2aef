import { type JobOptions, UsageError } from "../core/index.js";
import type { TaskDefinition } from "./definition/task.js";
import { type Aggregation, aggregations, type DocumentValue } from "./metrics/aggregations.js";
import { type LogLikelihood, metrics } from "./metrics/metrics.js";
import { standardErrorOf } from "./metrics/standardError.js";
import type { PreparedTask } from "./prepareTasks.js";
import type { Question } from "./requests/requests.js";
import type { Scorer, ScoringWork } from "./scoring/scorer.js";

/** How figures are made. */
export interface FigureOptions extends JobOptions {
  /** Resamples for the standard errors of figures that are no means; 0 for no standard errors. Default 100,000. */
  resamples?: number;
}

/** One figure of a task. */
export interface TaskFigure {
  metric: string;
  /** What the answers went through; "none" where nothing. */
  filter: string;
  value: number;
  /** Undefined where none is known. */
  standardError: number | undefined;
  higherIsBetter: boolean;
  aggregation: string;
  /** What it is made of, of each document in order. */
  values: readonly DocumentValue[];
}

/** What was asked of one document and what came back. */
export interface TaskSample {
  question: Question;
  scored?: readonly LogLikelihood[];
  /** Of a text that was scored as a whole. */
  logLikelihood?: number;
  answer?: string;
}

/** What a task came to. */
export interface TaskResult extends PreparedTask {
  figures: TaskFigure[];
  samples: TaskSample[];
  work: ScoringWork;
}

/**
 * Asks tasks of a model, or of anything else that scores, and makes their figures and standard errors as lm-evaluation-harness does.
 * @throws what the scorer throws
 */
export async function evaluateTasks(
  scorer: Scorer,
  tasks: readonly PreparedTask[],
  { resamples = 100_000, signal, onProgress }: FigureOptions = {},
): Promise<TaskResult[]> {
  if (!(Number.isSafeInteger(resamples) && resamples >= 0)) throw new UsageError(`${resamples} resamples`);
  const results: TaskResult[] = [];
  for (const prepared of tasks) {
    const before = { ...scorer.work };
    const samples = await ask(scorer, prepared.task, prepared.questions, { signal, onProgress });
    const figures = await figuresOf(prepared.task, samples, resamples, { signal, onProgress });
    const work = {
      tokensRun: scorer.work.tokensRun - before.tokensRun,
      tokensAlone: scorer.work.tokensAlone - before.tokensAlone,
    };
    results.push({ ...prepared, figures, samples, work });
  }
  return results;
}

/** Asks all questions of a task at once, so that those that begin alike can share. */
async function ask(
  scorer: Scorer,
  { outputType, generation }: TaskDefinition,
  questions: readonly Question[],
  options: JobOptions,
): Promise<TaskSample[]> {
  if (outputType === "generate_until") {
    const prompts = questions.map(({ prompt }) => ({ prompt: prompt!, settings: generation }));
    const answers = await scorer.answers(prompts, options);
    return questions.map((question, i) => ({ question, answer: answers[i] }));
  }
  if (outputType === "loglikelihood_rolling") {
    const sums = await scorer.textLogLikelihoods(
      questions.map(({ text }) => text!),
      options,
    );
    return questions.map((question, i) => ({ question, logLikelihood: sums[i] }));
  }
  const scored = await scorer.logLikelihoods(
    questions.flatMap(({ continuations }) => continuations),
    options,
  );
  let at = 0;
  return questions.map((question) => {
    const own = scored.slice(at, at + question.continuations.length);
    at += own.length;
    return { question, scored: own };
  });
}

async function figuresOf(
  task: TaskDefinition,
  samples: readonly TaskSample[],
  resamples: number,
  options: JobOptions,
): Promise<TaskFigure[]> {
  const figures: TaskFigure[] = [];
  const everywhere = samples.map((_, i) => i);
  for (const filter of task.filters) {
    for (const { name, aggregation: aggregationName, higherIsBetter, options: settings } of task.metrics) {
      const metric = metrics[task.outputType][name];
      const values = samples.map((sample) => metric.of(resultOf(task, sample, filter.apply) as never, settings));
      const aggregation: Aggregation = aggregations[aggregationName];
      figures.push({
        metric: name,
        filter: filter.name,
        value: aggregation.over(values)(everywhere),
        standardError: await standardErrorOf(aggregation, values, resamples, options),
        higherIsBetter,
        aggregation: aggregationName,
        values,
      });
    }
  }
  return figures;
}

/** What a metric of the task's kind looks at. */
function resultOf(
  { outputType }: TaskDefinition,
  { question, scored, logLikelihood, answer }: TaskSample,
  filter: (answer: string) => string,
) {
  const { choices, gold, text, references } = question;
  const kinds = {
    loglikelihood: () => scored![0],
    loglikelihood_rolling: () => ({ text, logLikelihood }),
    generate_until: () => ({ answer: filter(answer!), references }),
    multiple_choice: () => {
      const count = choices!.length;
      const alone = scored!.slice(count).map((one) => one.logLikelihood);
      return { choices, gold, scored: scored!.slice(0, count), alone };
    },
  };
  return kinds[outputType]();
}
