import * as z from "zod/mini";
import { type JobOptions, UsageError } from "../../core/index.js";
import type { Tokenizer } from "../../text/index.js";
import { parseLines, recordSchema, type TrainingRecord } from "../data/records.js";
import { documentSeparator, tokenizeDocuments } from "../data/tokens.js";

/** What a teacher is asked, and what is shown before it. */
export type TeachingPrompt = Pick<TrainingRecord, "prompt" | "demonstrations">;

/** A record serves as its prompt: what it has beyond that is answered anew. */
const promptSchema = z.extend(z.partial(recordSchema), {
  prompt: recordSchema.shape.prompt.check(z.minLength(1)),
});

/** Prompts of a file with one JSON object a line, records among them. @throws FormatError naming the line */
export function parsePrompts(content: string, file: string): TeachingPrompt[] {
  const hint = 'A line is {"prompt": "…"}, with "demonstrations" where there are any';
  return parseLines(promptSchema, content, file, { what: "prompts", hint }).map(({ prompt, demonstrations }) => ({
    prompt,
    ...(demonstrations && { demonstrations }),
  }));
}

/** How a text is cut into prompts. */
export interface CutOptions extends JobOptions {
  /** Tokens of a prompt. */
  promptTokens: number;
  /** Tokens from the beginning of a prompt to that of the next, at least `promptTokens`. */
  every: number;
  /** Prompts at most, from the first. Default: all. */
  most?: number;
}

/**
 * Beginnings for a teacher to continue, cut out of the documents of a text; none crosses the end of one.
 * @throws UsageError where no document is long enough
 */
export async function cutPrompts(
  tokenizer: Tokenizer,
  text: string,
  { promptTokens, every, most = Number.POSITIVE_INFINITY, ...job }: CutOptions,
): Promise<TeachingPrompt[]> {
  if (every < promptTokens)
    throw new UsageError(`prompts of ${promptTokens} tokens cannot begin every ${every} tokens`);
  const tokens = await tokenizeDocuments(tokenizer, text, job);
  const end = tokenizer.idOf(documentSeparator);
  const prompts: TeachingPrompt[] = [];
  for (let from = 0; from + promptTokens <= tokens.length && prompts.length < most; ) {
    const window = tokens.subarray(from, from + promptTokens);
    const ended = end === undefined ? -1 : window.indexOf(end);
    if (ended >= 0) {
      from += ended + 1;
      continue;
    }
    // A token may hold a part of a character.
    const prompt = tokenizer.decode(window).replace(/^\ufffd+|\ufffd+$/g, "");
    if (prompt !== "") prompts.push({ prompt });
    const next = tokens.subarray(from, from + every);
    const endsIn = end === undefined ? -1 : next.indexOf(end);
    from += endsIn < 0 ? every : endsIn + 1;
  }
  if (prompts.length === 0) throw new UsageError(`no document of the text has ${promptTokens} tokens`);
  return prompts;
}
