import { FormatError, quote } from "../../core/index.js";
import type { ChatMessage, ChatTemplate } from "../../text/index.js";
import type { TaskDefinition, Wording } from "../definition/task.js";
import type { Document } from "../documents/document.js";
import type { DrawExamples } from "./examples.js";

/** How prompts are written. */
export interface PromptOptions {
  /** Writes the prompt as a chat. */
  chatTemplate?: ChatTemplate;
  /** In front of everything. */
  systemInstruction?: string;
  /** Whether each example is a turn of the chat; default true. Else all are within one question. */
  examplesAsTurns?: boolean;
}

/** A part of a prompt, and what stands behind it where the prompt is no chat. */
interface Part {
  role: "system" | "user" | "assistant";
  content: string;
  delimiter: string;
}

const endsBlank = (text: string) => /\s$/.test(text);
const beginsBlank = (text: string) => /^\s/.test(text);

/** Both with the delimiter between them, unless there is a blank or one is empty. */
function joined(a: string, b: string, delimiter: string): string {
  if (a === "" || b === "") return a + b;
  return endsBlank(a) || beginsBlank(b) ? a + b : a + delimiter + b;
}

/** One question, with its answer where that is told. */
function turn(
  { targetDelimiter, exampleDelimiter }: Pick<Wording, "targetDelimiter" | "exampleDelimiter">,
  question: string,
  answer: string | undefined,
  prefix: string,
): Part[] {
  const answered = answer !== undefined && answer !== "";
  const needsDelimiter = prefix !== "" && question !== "" && !endsBlank(question) && !beginsBlank(prefix);
  const delimited = (answered && prefix === "") || needsDelimiter;
  const asked: Part = { role: "user", content: question, delimiter: delimited ? targetDelimiter : "" };
  if (answered)
    return [asked, { role: "assistant", content: joined(prefix, answer, " "), delimiter: exampleDelimiter }];
  return prefix === "" ? [asked] : [asked, { role: "assistant", content: prefix, delimiter: "" }];
}

/** The prompt of one document: several where each choice has a context of its own. */
export function promptsOf(
  task: TaskDefinition,
  document: Document,
  draw: DrawExamples,
  options: PromptOptions,
): string | string[] {
  const { wording, examples } = task;
  const instruction = joined(options.systemInstruction ?? "", task.description(document), wording.exampleDelimiter);
  const before: Part[] = instruction === "" ? [] : [{ role: "system", content: instruction, delimiter: "" }];
  for (const example of draw(document)) before.push(...exampleTurn(task, example));
  const prefix = wording.prefix(document);
  const question = wording.text(document);
  const write = (parts: readonly Part[]) => written(parts, prefix, options);
  if (typeof question === "string") {
    return write([...before, ...turn({ ...wording, exampleDelimiter: "" }, question, undefined, prefix)]);
  }
  const delimiters = { targetDelimiter: "", exampleDelimiter: examples.wording.exampleDelimiter };
  return wording.choices!(document).map((context) =>
    write([...before, ...turn(delimiters, context, undefined, prefix)]),
  );
}

function exampleTurn({ examples: { wording }, file }: TaskDefinition, example: Document): Part[] {
  const choices = wording.choices?.(example);
  let question = wording.text(example);
  const target = wording.target(example);
  const one = Array.isArray(target) ? target[0] : (target as string | number);
  const chosen = (at: number) => {
    const choice = choices?.[at];
    if (choice !== undefined) return choice;
    throw new FormatError({
      file,
      field: "doc_to_target",
      problem: `choice ${at} of an example`,
      expected: `0 to ${(choices?.length ?? 0) - 1}`,
    });
  };
  let answer: string;
  if (typeof question === "number") {
    // Each choice is a context, and the right one is the question.
    question = chosen(question);
    answer = String(one);
  } else
    answer = typeof one === "number" && choices !== undefined && !Array.isArray(target) ? chosen(one) : String(one);
  return turn(wording, question, answer, wording.prefix(example));
}

function written(
  parts: readonly Part[],
  prefix: string,
  { chatTemplate, examplesAsTurns = true }: PromptOptions,
): string {
  if (chatTemplate === undefined) return parts.map(({ content, delimiter }) => content + delimiter).join("");
  const messages = examplesAsTurns ? parts : inOneTurn(parts);
  const chat: ChatMessage[] = messages.map(({ role, content }) => ({ role, content }));
  if (prefix === "") return chatTemplate.render(chat, { addGenerationPrompt: true });
  // The answer has begun: what a template writes behind it does not belong there.
  const text = chatTemplate.render(chat, { addGenerationPrompt: false });
  const begun = chat.at(-1)!.content.trim();
  const at = text.lastIndexOf(begun);
  if (at < 0) throw new FormatError({ file: "the chat template", problem: `it does not write ${quote(begun)}` });
  return text.slice(0, at + begun.length);
}

/** The questions and answers of the examples as one question. */
function inOneTurn(parts: readonly Part[]): Part[] {
  const system = parts[0]?.role === "system" ? [parts[0]] : [];
  const rest = parts.slice(system.length);
  const begun = rest.at(-1)?.role === "assistant" ? [rest.at(-1)!] : [];
  const asked = rest.slice(0, rest.length - begun.length);
  const text = asked.map(({ content, delimiter }, i) => content + (i === asked.length - 1 ? "" : delimiter)).join("");
  return [...system, { role: "user", content: text, delimiter: "" }, ...begun];
}
