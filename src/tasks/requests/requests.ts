import { FormatError, quote } from "../../core/index.js";
import type { Target } from "../definition/fields.js";
import type { TaskDefinition } from "../definition/task.js";
import type { Document } from "../documents/document.js";
import type { DrawExamples } from "./examples.js";
import { type PromptOptions, promptsOf } from "./prompt.js";

/** A continuation that is to be scored behind a context. */
export interface ContinuationRequest {
  context: string;
  continuation: string;
}

/** A document with all that is asked of the model for it. */
export interface Question {
  document: Document;
  target: Target;
  /** Of multiple choice. */
  choices?: readonly string[];
  /** Places of the right choices; −1 for one that is not there. */
  gold?: readonly number[];
  /** To be scored: each choice, then each behind nothing where a metric asks for that; or the answer. */
  continuations: readonly ContinuationRequest[];
  /** To be scored as a whole. */
  text?: string;
  /** To be continued. */
  prompt?: string;
  /** Answers that are right. */
  references?: readonly string[];
}

/** What is asked of one document. @throws FormatError for a document that the task does not fit */
export function questionOf(
  task: TaskDefinition,
  document: Document,
  draw: DrawExamples,
  options: PromptOptions,
): Question {
  const target = task.wording.target(document);
  const blank = { document, target, continuations: [] };
  if (task.outputType === "loglikelihood_rolling") return { ...blank, text: textOf(task, target) };
  const prompts = promptsOf(task, document, draw, options);
  const kinds = {
    loglikelihood: () => ({
      ...blank,
      continuations: [{ context: oneOf(task, prompts), continuation: textOf(task, target) }],
    }),
    multiple_choice: () => multipleChoice(task, blank, prompts, options),
    generate_until: () => ({
      ...blank,
      prompt: oneOf(task, prompts),
      references: referencesOf(task, document, target),
    }),
  };
  return kinds[task.outputType]();
}

function oneOf({ file }: TaskDefinition, prompts: string | string[]): string {
  if (typeof prompts === "string") return prompts;
  throw new FormatError({
    file,
    field: "doc_to_text",
    problem: "a place among contexts",
    expected: "it in a task of the kind multiple_choice",
  });
}

function textOf({ file }: TaskDefinition, target: Target): string {
  if (typeof target === "string") return target;
  throw new FormatError({ file, field: "doc_to_target", problem: quote(target), expected: "a text" });
}

function multipleChoice(
  task: TaskDefinition,
  { document, target }: Pick<Question, "document" | "target">,
  prompts: string | string[],
  { chatTemplate }: PromptOptions,
): Question {
  const { wording } = task;
  const choices = wording.choices!(document);
  const begun = wording.prefix(document);
  // A chat has its own way to go from question to answer.
  const delimiter = chatTemplate === undefined || (begun !== "" && !/\s$/.test(begun)) ? wording.targetDelimiter : "";
  const conditional =
    typeof prompts === "string"
      ? choices.map((choice) => ({ context: prompts, continuation: delimiter + choice }))
      : prompts.map((context) => ({ context, continuation: delimiter + textOf(task, target) }));
  const alone = task.metrics.some(({ name }) => name === "acc_mutual_info")
    ? choices.map((choice) => ({ context: "", continuation: delimiter + choice }))
    : [];
  const right = typeof prompts === "string" ? target : (wording.text(document) as number);
  const gold = (Array.isArray(right) ? right : [right]).map((one: string | number) => placeOf(one, choices));
  return { document, target, choices, gold, continuations: [...conditional, ...alone] };
}

function placeOf(right: string | number, choices: readonly string[]): number {
  if (typeof right === "string") return choices.indexOf(right);
  return Number.isInteger(right) && right >= 0 && right < choices.length ? right : -1;
}

function referencesOf({ wording, file }: TaskDefinition, document: Document, target: Target): string[] {
  const choices = wording.choices?.(document);
  const all = Array.isArray(target) ? target : [target as string | number];
  if (choices === undefined) return all.map(String);
  return all.map((one: string | number) => {
    const choice = typeof one === "number" ? choices[one] : one;
    if (choice !== undefined) return choice;
    throw new FormatError({
      file,
      field: "doc_to_target",
      problem: `choice ${one}`,
      expected: `0 to ${choices.length - 1}`,
    });
  });
}
