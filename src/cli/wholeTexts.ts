import { Option } from "commander";
import { Stage, UsageError } from "../core/index.js";
import { readText, resolveModel } from "../io/index.node.js";
import type { Model } from "../model/index.js";
import { loadTokenizer } from "../text/index.js";
import { tokensOfText } from "../text/internal.js";
import { type LabelledText, parseLabelledText } from "../train/index.js";
import type { Context } from "./command.js";
import { isLabelled } from "./labelledTokens.js";
import { integer } from "./numbers.js";
import { bosOption, type MachineOptions, textOption, type WeightsOption } from "./options.js";
import { type PromptOptions, promptText } from "./promptText.js";
import { openSession } from "./session.js";

/** Texts that a model reads as a whole, each by itself. */
export interface WholeTextOptions extends PromptOptions, MachineOptions, WeightsOption {
  text?: string;
  maxTokens?: number;
  bos?: boolean;
}

export const wholeTextOptions = (): Option[] => [
  new Option("--prompt <text>", "one text; - reads it from stdin"),
  textOption("with one text a line; or, with the header label<tab>text, labelled ones"),
  new Option("--max-tokens <n>", "tokens of a text that are read; default as many as the model can").argParser(
    integer({ min: 2 }),
  ),
  bosOption("in front of each text"),
];

/** The texts of the command line, with their labels where they have any. */
export async function wholeTexts(context: Context, options: WholeTextOptions): Promise<Partial<LabelledText>[]> {
  const prompt = await promptText(context, options);
  if ((prompt === undefined) === (options.text === undefined)) throw new UsageError("give --prompt or --text");
  if (prompt !== undefined) return [{ text: prompt }];
  const content = await readText(options.text!);
  if (isLabelled(content)) return parseLabelledText(content, options.text!);
  const lines = content.split(/\r?\n/).filter((line) => line !== "");
  if (lines.length === 0) throw new UsageError(`${options.text} has no text`);
  return lines.map((text) => ({ text }));
}

/** Loads the model and gives it every text's tokens, in order. @returns what `use` makes of each */
export async function forEachText<T>(
  context: Context,
  argument: string,
  options: WholeTextOptions,
  texts: readonly Partial<LabelledText>[],
  use: (model: Model, tokens: Uint32Array) => Promise<T>,
): Promise<T[]> {
  const files = await resolveModel(argument, context);
  const tokenizer = await loadTokenizer(files);
  using session = await openSession(context, files, options);
  const { model } = session;
  const stage = new Stage("read", texts.length, "texts", context.onProgress);
  const made: T[] = [];
  for (const { text } of texts) {
    context.signal.throwIfAborted();
    const most = Math.min(options.maxTokens ?? Number.POSITIVE_INFINITY, model.config.maxPositions);
    made.push(await use(model, tokensOfText(tokenizer, text!, most, options.bos)));
    stage.advance(1);
  }
  return made;
}
