import type { Model } from "../model/index.js";
import { type ChatMessage, type ChatTemplate, encodeChat, type RenderOptions, type Tokenizer } from "../text/index.js";
import { type GenerateOptions, type GenerationStep, generate } from "./generate.js";

/** Those of `generate`, and those of rendering a chat template. */
export interface GenerateChatOptions extends Omit<GenerateOptions, "tokenizer" | "continuesPrompt">, RenderOptions {}

/**
 * Answers a chat: `generate` after the messages in the model's chat template, with text in every step. With the same
 * `sequence` for every turn only what is new of a chat is run.
 * @example
 * const tokenizer = await loadTokenizer(files);
 * const template = (await loadChatTemplate(files))!;
 * using sequence = new Sequence(model, 4096);
 * const messages = [{ role: "user", content: "Name a colour." }];
 * for await (const { text } of generateChat(model, { tokenizer, template }, messages, { sequence })) show(text);
 * @throws FormatError when the template refuses the messages, and as `generate`
 */
export function generateChat(
  model: Model,
  { tokenizer, template }: { tokenizer: Tokenizer; template: ChatTemplate },
  messages: readonly ChatMessage[],
  options: GenerateChatOptions = {},
): AsyncGenerator<GenerationStep, void, undefined> {
  const prompt = encodeChat(tokenizer, template, messages, options);
  return generate(model, prompt, { ...options, tokenizer, continuesPrompt: false });
}
