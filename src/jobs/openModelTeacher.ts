import { type JobOptions, UsageError } from "../core/index.js";
import type { LocalModelFiles } from "../io/index.js";
import { checkSound } from "../model/index.js";
import { type OpenModelOptions, openModel } from "../pipeline/index.js";
import type { SamplingOptions } from "../runtime/index.js";
import { loadChatTemplate, loadTokenizer } from "../text/index.js";
import { modelTeacher, type RecordTeacher } from "../train/index.js";
import { fingerprintOf } from "./source.js";

/** How a model is opened and writes, to teach. */
export interface OpenModelTeacherOptions extends OpenModelOptions, JobOptions {
  /** Asks in the model's chat template; one that is only preferred may be missing. */
  chat: boolean | "preferred";
  sampling?: Omit<SamplingOptions, "seed">;
  /** Tokens of an answer at most. Default 256. */
  maxTokens?: number;
  stopStrings?: readonly string[];
}

/**
 * Opens a model as a teacher, known by every byte of its weights.
 * @throws UsageError where a chat is asked for and the model has no template; what `openModel` throws
 */
export async function openModelTeacher(
  files: LocalModelFiles,
  { chat, sampling, maxTokens, stopStrings, ...opening }: OpenModelTeacherOptions,
): Promise<RecordTeacher & Disposable> {
  const template = chat === false ? undefined : await loadChatTemplate(files);
  if (chat === true && template === undefined) throw new UsageError(`${files.location} has no chat template`);
  const tokenizer = await loadTokenizer(files);
  const weights = await fingerprintOf(files, opening);
  const opened = await openModel(files, opening);
  try {
    const { model, prefill, attention, kv, exits } = opened;
    checkSound(model);
    const said = { ...sampling, maxTokens, stopStrings };
    const teacher = modelTeacher({
      model,
      tokenizer,
      template,
      generation: { ...said, prefill, attention, kv, exits },
      location: files.location,
      identity: { weights, chat: template !== undefined, format: model.weights, device: opening.device, ...said },
    });
    return { ...teacher, [Symbol.dispose]: () => opened[Symbol.dispose]() };
  } catch (error) {
    opened[Symbol.dispose]();
    throw error;
  }
}
