import type { LocalModelFiles } from "../io/index.js";
import { resolveModel } from "../io/index.node.js";
import {
  type TrainedDirectory,
  type TrainingTokens,
  type TrainToDirectoryOptions,
  trainToDirectory,
} from "../jobs/index.js";
import { parseRecords, tokenizeDocuments, tokenizeRecords } from "../train/index.js";
import { readTrainingText } from "../train/index.node.js";
import type { Context } from "./command.js";
import { digits, facts } from "./format.js";
import { openTokenizer } from "./tokenizer.js";
import type { TrainingCommandOptions } from "./trainingOptions.js";

/** Runs `train` or `finetune` from the command line. Prints what it came to. */
export async function trainFromCommand(
  context: Context,
  model: string,
  from: TrainToDirectoryOptions["from"],
  options: TrainingCommandOptions,
): Promise<TrainedDirectory> {
  const { signal, onProgress } = context;
  const { text, evalText, output, maxTokens, teacher, minillmOption, ...settings } = options;
  const files = await resolveModel(model, context);
  const result = await trainToDirectory(files, output, {
    ...settings,
    miniLlm: minillmOption,
    from,
    tokens: () => readTrainingTokens(context, files, text, settings.window, maxTokens),
    evaluationTokens:
      evalText === undefined ? undefined : () => readTrainingTokens(context, files, evalText, settings.window),
    teacher: teacher === undefined ? undefined : await resolveModel(teacher, context),
    onResume: (step) => context.note(`Going on at step ${step} of ${options.steps}`),
    signal,
    onProgress,
  });
  context.print(`${inWords(result)}\n`);
  return result;
}

/** A text as tokens of a model, or the records of a .jsonl file in windows. */
export async function readTrainingTokens(
  context: Context,
  files: LocalModelFiles,
  path: string,
  window: number,
  maxTokens?: number,
): Promise<TrainingTokens> {
  const [tokenizer, content] = [await openTokenizer(context, files), await readTrainingText(path, context.signal)];
  if (!path.endsWith(".jsonl")) return tokenizeDocuments(tokenizer, content, { ...context, maxTokens });
  const records = await tokenizeRecords(tokenizer, parseRecords(content, path), window, context);
  const { cut, labels } = records;
  if (cut > 0)
    context.note(
      `${cut} of ${labels.length / records.window} records of ${path} are longer than a window and lose their end`,
    );
  return records;
}

function inWords(result: TrainedDirectory): string {
  const { tokensSeen, finalLoss, tokensPerSecond, sparsity, perplexityBefore, perplexityAfter, output } = result;
  return facts([
    ["tokens seen", String(tokensSeen)],
    ["last loss", digits(finalLoss, 4)],
    ["tokens per second", digits(tokensPerSecond, 4)],
    ["zeros in linear weights", `${(sparsity * 100).toFixed(1)} %`],
    ...(perplexityBefore === undefined
      ? []
      : ([["perplexity", `${digits(perplexityBefore, 4)} before, ${digits(perplexityAfter!, 4)} after`]] as const)),
    ["wrote", output],
  ]);
}
