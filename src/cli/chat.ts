import { createInterface } from "node:readline";
import { UsageError } from "../core/index.js";
import type { Model } from "../model/index.js";
import { type FinishReason, type GenerateOptions, generate, Sequence } from "../runtime/index.js";
import { type ChatMessage, type ChatTemplate, encodeChat, type Tokenizer } from "../text/index.js";
import type { Context } from "./command.js";
import { terminalText } from "./format.js";

export interface ChatSetup {
  model: Model;
  tokenizer: Tokenizer;
  /** Without one every line is a text of its own to be continued. */
  template: ChatTemplate | undefined;
  system: string | undefined;
  generation: GenerateOptions;
}

/** A line and what the model wrote after it. */
export interface Turn {
  prompt: string;
  text: string;
  /** Absent where Ctrl-C ended the answer. */
  finishReason?: FinishReason;
}

/** Longest talk that is kept, in tokens; a longer context costs memory from the start. */
const maxContext = 4096;

/** Answers line after line of stdin until it ends. @returns the talk, without the lines that were too long for the model. */
export async function chat(context: Context, setup: ChatSetup): Promise<Turn[]> {
  const { stdin, stdout, signal, colors } = context;
  const { model } = setup;
  const terminal = stdin.isTTY === true && stdout.isTTY === true && !context.json;
  using sequence = new Sequence(
    model,
    Math.min(model.config.maxPositions, maxContext, setup.generation.cloud?.context ?? maxContext),
    setup.generation,
  );
  const lines = createInterface({ input: stdin, output: terminal ? stdout : undefined, prompt: colors.bold("> ") });
  signal.addEventListener("abort", () => lines.close(), { once: true });

  // On a terminal readline takes Ctrl-C; it stops the answer, or ends the talk where there is none.
  let answering: AbortController | undefined;
  lines.on("SIGINT", () => (answering === undefined ? lines.close() : answering.abort()));

  const system: ChatMessage[] = setup.system === undefined ? [] : [{ role: "system", content: setup.system }];
  const talk: Turn[] = [];
  let messages: ChatMessage[] = [];
  context.note(openingNote(setup));
  if (terminal) lines.prompt();
  for await (const line of lines) {
    if (line.trim() !== "") {
      if (setup.template === undefined) messages = [];
      messages.push({ role: "user", content: line });
      const prompt = fittingPrompt(setup, system, messages, sequence.capacity);
      if (prompt instanceof UsageError) {
        context.complain(prompt.message);
        messages.pop();
      } else {
        answering = new AbortController();
        const stop = AbortSignal.any([signal, answering.signal]);
        const answer = await answered(context, setup, sequence, prompt, stop);
        answering = undefined;
        talk.push({ prompt: line, ...answer });
        messages.push({ role: "assistant", content: answer.text });
      }
    }
    if (terminal) lines.prompt();
  }
  signal.throwIfAborted();
  if (terminal) context.print("\n");
  return talk;
}

const openingNote = ({ template }: ChatSetup) =>
  (template === undefined
    ? "The model has no chat template, or it is not used: each line is a text that the model goes on with."
    : "Each line is answered through the model's chat template. A model that was not trained to follow instructions makes no " +
      "sense of it; --no-chat goes on with your line instead.") +
  "\nCtrl-C stops an answer; Ctrl-D, or Ctrl-C at the prompt, ends the talk.";

/** Prints an answer as it comes. @returns its text, as far as it went. */
async function answered(
  context: Context,
  { model, generation, template }: ChatSetup,
  sequence: Sequence,
  prompt: Uint32Array,
  signal: AbortSignal,
): Promise<Omit<Turn, "prompt">> {
  const answer: Omit<Turn, "prompt"> = { text: "" };
  try {
    const continuesPrompt = template === undefined;
    for await (const step of generate(model, prompt, { ...generation, continuesPrompt, sequence, signal })) {
      answer.text += step.text;
      context.print(terminalText(step.text));
      if (step.finish !== undefined) answer.finishReason = step.finish.reason;
    }
  } catch (error) {
    if (!signal.aborted || context.signal.aborted) throw error;
  }
  context.print("\n\n");
  return answer;
}

/** The talk as tokens; its oldest turns are forgotten until there is room for an answer. @returns an error when there is none. */
function fittingPrompt(
  { tokenizer, template, generation }: ChatSetup,
  system: readonly ChatMessage[],
  messages: ChatMessage[],
  capacity: number,
): Uint32Array | UsageError {
  const room = Math.min(generation.maxTokens ?? 0, Math.floor(capacity / 2));
  for (;;) {
    const prompt =
      template === undefined
        ? tokenizer.encode(messages[0].content)
        : encodeChat(tokenizer, template, [...system, ...messages]);
    if (prompt.length + room <= capacity) return prompt;
    if (messages.length < 3)
      return new UsageError(
        `the line makes a prompt of ${prompt.length} tokens; with room for an answer at most ${capacity - room} fit. Shorten it`,
      );
    messages.splice(0, 2);
  }
}
