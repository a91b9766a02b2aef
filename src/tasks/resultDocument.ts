import { sha256Hex } from "../io/index.js";
import type { FigureOptions, TaskFigure, TaskResult, TaskSample } from "./evaluateTasks.js";
import { bleuSignature } from "./metrics/bleu.js";
import type { TaskOptions } from "./prepareTasks.js";

/** What of a run is not in its results. */
export interface RunFacts
  extends Pick<TaskOptions, "limit" | "seed" | "systemInstruction">,
    Pick<FigureOptions, "resamples"> {
  /** For people. */
  model: string;
  /** What the model ran with: format of its weights, backend. */
  modelArgs?: Readonly<Record<string, string | number | boolean>>;
  version: string;
  /** When it began, in seconds since 1970. */
  date: number;
  elapsedMs: number;
  chat: boolean;
}

/** Results in the layout of lm-evaluation-harness' `results_*.json`, for what reads those; what only we know is under `rarefy`. */
export function resultDocument(results: readonly TaskResult[], facts: RunFacts): object {
  const by = <T>(value: (result: TaskResult) => T) =>
    Object.fromEntries(results.map((result) => [result.task.name, value(result)]));
  const { model, modelArgs = {}, version, date, elapsedMs, chat, limit, seed = 1234, resamples = 100_000 } = facts;
  return {
    results: by(({ task, documents, figures }) => ({
      name: task.name,
      alias: task.alias,
      sample_len: documents.asked,
      ...Object.fromEntries(figures.flatMap(entriesOf)),
    })),
    group_subtasks: {},
    configs: by(({ task, shots }) => ({ ...task.config, num_fewshot: shots })),
    versions: by(({ task }) => task.version),
    "n-shot": by(({ shots }) => shots),
    higher_is_better: by(({ task }) =>
      Object.fromEntries(task.metrics.map((metric) => [metric.name, metric.higherIsBetter])),
    ),
    "n-samples": by(({ documents }) => ({ original: documents.all, effective: documents.asked })),
    config: {
      model: "rarefy",
      model_args: modelArgs,
      limit: limit ?? null,
      bootstrap_iters: resamples,
      fewshot_seed: seed,
    },
    date,
    model_source: "rarefy",
    model_name: model,
    model_name_sanitized: model.replace(/[^A-Za-z0-9._-]/g, "__"),
    system_instruction: facts.systemInstruction ?? null,
    chat_template: chat ? "the model's" : null,
    total_evaluation_time_seconds: String(elapsedMs / 1000),
    rarefy: {
      version,
      asked: by(({ sha256 }) => sha256),
      work: by(({ work }) => work),
      signatures: by(({ figures, samples }) => signaturesOf(figures, samples)),
    },
  };
}

const entriesOf = ({ metric, filter, value, standardError }: TaskFigure): [string, number | string][] => [
  [`${metric},${filter}`, value],
  [`${metric}_stderr,${filter}`, standardError ?? "N/A"],
];

function signaturesOf(figures: readonly TaskFigure[], samples: readonly TaskSample[]): Record<string, string> {
  if (!figures.some(({ metric }) => metric === "bleu")) return {};
  const counts = new Set(samples.map(({ question }) => question.references?.length ?? 0));
  const [references] = counts;
  return {
    bleu: counts.size === 1 ? bleuSignature(references) : bleuSignature(references).replace(/nrefs:\d+/, "nrefs:var"),
  };
}

/** What was asked and answered, one document a line, in the layout of lm-evaluation-harness' `samples_*.jsonl`. */
export async function sampleLines({ task, samples, figures }: TaskResult): Promise<string> {
  const lines: string[] = [];
  for (const { name, apply } of task.filters) {
    for (const [i, { question, scored, logLikelihood, answer }] of samples.entries()) {
      const { document, target, continuations, text, prompt } = question;
      const asked: unknown[][] =
        prompt !== undefined
          ? [[prompt, task.generation]]
          : text !== undefined
            ? [[text]]
            : continuations.map(({ context, continuation }) => [context, continuation]);
      const answers: unknown[] =
        answer !== undefined ? [answer] : (scored?.map((one) => [one.logLikelihood, one.isGreedy]) ?? [logLikelihood]);
      const own = figures.filter(({ filter }) => filter === name);
      lines.push(
        JSON.stringify({
          doc_id: i,
          doc: document,
          target,
          arguments: Object.fromEntries(
            asked.map((parts, r) => [`gen_args_${r}`, Object.fromEntries(parts.map((part, p) => [`arg_${p}`, part]))]),
          ),
          resps: answers.map((one) => [one]),
          filtered_resps: answer === undefined ? answers : [apply(answer)],
          filter: name,
          metrics: own.map(({ metric }) => metric),
          doc_hash: await sha256Hex(JSON.stringify(document, undefined, 2)),
          prompt_hash: await sha256Hex(String(asked[0][0])),
          target_hash: await sha256Hex(String(target)),
          ...Object.fromEntries(own.map(({ metric, values }) => [metric, values[i]])),
        }),
      );
    }
  }
  return `${lines.join("\n")}\n`;
}
