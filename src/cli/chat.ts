import { createInterface } from "node:readline";
import { UsageError } from "../core/index.js";
import type { Model } from "../model/index.js";
import { type GenerateOptions, generate, Sequence } from "../runtime/index.js";
import type { ChatMessage, ChatTemplate, Tokenizer } from "../text/index.js";
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

/** Longest talk that is kept, in tokens; a longer context costs memory from the start. */
const maxContext = 4096;

/** Answers line after line of stdin until it ends. */
export async function chat(context: Context, setup: ChatSetup): Promise<void> {
  const { stdin, stdout, signal, colors } = context;
  const { model } = setup;
  const terminal = stdin.isTTY === true && stdout.isTTY === true;
  using sequence = new Sequence(model, Math.min(model.config.maxPositions, maxContext));
  const lines = createInterface({ input: stdin, output: terminal ? stdout : undefined, prompt: colors.bold("> ") });
  signal.addEventListener("abort", () => lines.close(), { once: true });

  // On a terminal readline takes Ctrl-C; it stops the answer, or ends the talk where there is none.
  let answering: AbortController | undefined;
  lines.on("SIGINT", () => (answering === undefined ? lines.close() : answering.abort()));

  const system: ChatMessage[] = setup.system === undefined ? [] : [{ role: "system", content: setup.system }];
  let turns: ChatMessage[] = [];
  if (terminal) lines.prompt();
  for await (const line of lines) {
    if (line.trim() !== "") {
      if (setup.template === undefined) turns = [];
      turns.push({ role: "user", content: line });
      answering = new AbortController();
      const stop = AbortSignal.any([signal, answering.signal]);
      const content = await answer(context, setup, sequence, system, turns, stop);
      answering = undefined;
      turns.push({ role: "assistant", content });
    }
    if (terminal) lines.prompt();
  }
  signal.throwIfAborted();
  if (terminal) context.print("\n");
}

/** Prints an answer as it comes. @returns its text, as far as it went. */
async function answer(
  context: Context,
  setup: ChatSetup,
  sequence: Sequence,
  system: readonly ChatMessage[],
  turns: ChatMessage[],
  signal: AbortSignal,
): Promise<string> {
  const { model, generation } = setup;
  const prompt = fittingPrompt(setup, system, turns, sequence.capacity);
  let text = "";
  try {
    for await (const step of generate(model, prompt, { ...generation, sequence, signal })) {
      text += step.text;
      context.print(terminalText(step.text));
    }
  } catch (error) {
    if (!signal.aborted || context.signal.aborted) throw error;
  }
  context.print("\n\n");
  return text;
}

/** The talk as tokens; its oldest turns are forgotten until there is room for an answer. */
function fittingPrompt(
  { tokenizer, template, generation }: ChatSetup,
  system: readonly ChatMessage[],
  turns: ChatMessage[],
  capacity: number,
): Uint32Array {
  const room = Math.min(generation.maxTokens ?? 0, Math.floor(capacity / 2));
  for (;;) {
    const prompt =
      template === undefined
        ? tokenizer.encode(turns[0].content)
        : tokenizer.encode(template.render([...system, ...turns]), { addSpecialTokens: false });
    if (prompt.length + room <= capacity) return prompt;
    if (turns.length < 3) throw new UsageError(`a message of ${prompt.length} tokens in a context of ${capacity}`);
    turns.splice(0, 2);
  }
}
