import { quote, UsageError } from "../core/index.js";
import type { Model } from "../model/index.js";
import type { Tokenizer } from "../text/index.js";
import { type GenerateOptions, type GenerationStep, type GenerationSummary, generate } from "./generate.js";

/**
 * Continues a text: `generate` with the prompt encoded (and the tokenizer's begin-of-text token where it adds one) and text
 * in every step.
 */
export function generateText(
  model: Model,
  tokenizer: Tokenizer,
  prompt: string,
  options: Omit<GenerateOptions, "tokenizer"> = {},
): AsyncGenerator<GenerationStep, void, undefined> {
  if (typeof prompt !== "string") throw new UsageError(`generateText: the prompt is ${quote(prompt)}; expected a text`);
  return generate(model, tokenizer.encode(prompt), { ...options, tokenizer });
}

/** Runs a generation to its end. */
export async function collect(generation: AsyncIterable<GenerationStep>): Promise<GenerationSummary> {
  let summary: GenerationSummary | undefined;
  for await (const step of generation) summary = step.finish;
  // Every generation ends with a step that has `finish`, or throws.
  return summary!;
}
