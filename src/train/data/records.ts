import * as z from "zod/mini";
import { breathe, FormatError, type JobOptions, Stage, UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { parseJson } from "../../io/index.js";
import type { Tokenizer } from "../../text/index.js";
import type { Batch } from "../objective.js";
import { batchOfStep, takeRows } from "./rows.js";
import { documentSeparator, type Windows } from "./tokens.js";

/** Longest text of a record. */
const text = z.string().check(z.maxLength(2 ** 22));
const written = text.check(z.minLength(1));
const turn = { prompt: text, response: written };

/** Before one prompt. */
export const maxDemonstrations = 256;

/** Also what an unfinished file of answers holds. */
export const recordSchema = z.strictObject({
  ...turn,
  /** What leads to the response, written before it and learnt like it (chain of thought). */
  rationale: z.optional(written),
  /** Shown before the prompt and not learnt (in-context). */
  demonstrations: z.optional(z.array(z.strictObject(turn)).check(z.maxLength(maxDemonstrations))),
  /** The response was cut where it became too long: that the text ends is not learnt. */
  unfinished: z.optional(z.boolean()),
});

/** A prompt, and what is to be said to it: by a person, or by another model that is learnt from. */
export type TrainingRecord = z.output<typeof recordSchema>;

const lineLimits = { depth: 8, values: 4096 };

/** Records of a file with one JSON object a line. @throws FormatError naming the line */
export function parseRecords(content: string, file: string): TrainingRecord[] {
  return parseLines(recordSchema, content, file, { what: "records", hint: recordHint });
}

/** Lines of JSON, empty ones left out. @throws FormatError naming the line, and where there are none */
export function parseLines<T>(
  schema: z.core.$ZodType<T>,
  content: string,
  file: string,
  { what, hint }: { what: string; hint: string },
): T[] {
  const encoder = new TextEncoder();
  const values = content.split(/\r?\n/).flatMap((line, i) => {
    if (line.trim() === "") return [];
    const place = `${file}, line ${i + 1}`;
    return [checkSchema(schema, parseJson(encoder.encode(line), place, lineLimits), place, hint)];
  });
  if (values.length === 0) throw new FormatError({ file, problem: `no ${what}`, hint });
  return values;
}

const recordHint =
  'A line is {"prompt": "…", "response": "…"}, with "rationale" and "demonstrations" where there are any';

/** Records as windows of one length, one each: what is not learnt has no label. */
export interface RecordTokens {
  /** int32 [records, window]; filled up with the token that ends a text. */
  tokens: Int32Array;
  /** int32 [records, window]: the token that follows, −1 where it is not learnt. */
  labels: Int32Array;
  window: number;
  /** How many ended beyond the window and were cut. */
  cut: number;
}

/** What is given: demonstrations, each with an empty line behind it, and the prompt. */
export function givenText({ prompt, demonstrations = [] }: Pick<TrainingRecord, "prompt" | "demonstrations">): string {
  return demonstrations.map((shown) => `${shown.prompt}${shown.response}\n\n`).join("") + prompt;
}

/** What is learnt: rationale and response; and, where it is whole, that the text ends. */
const learntText = ({ rationale = "", response }: TrainingRecord) => rationale + response;

/**
 * @param window tokens of a record at most; what is longer loses its end
 * @throws UsageError for a record whose prompt leaves no room
 */
export async function tokenizeRecords(
  tokenizer: Tokenizer,
  records: readonly TrainingRecord[],
  window: number,
  { signal, onProgress }: JobOptions = {},
): Promise<RecordTokens> {
  const end = tokenizer.idOf(documentSeparator);
  const tokens = new Int32Array(records.length * window).fill(end ?? 0);
  const labels = new Int32Array(records.length * window).fill(-1);
  const stage = new Stage("tokenize", records.length, "records", onProgress);
  let cut = 0;
  for (const [r, record] of records.entries()) {
    await breathe(signal);
    const parts = [givenText(record), learntText(record)];
    const [given, learnt] = parts.map((part) => tokenizer.encode(part, { addSpecialTokens: false }));
    const whole = [...given, ...learnt, ...(end === undefined || record.unfinished ? [] : [end])];
    // The first token is predicted by nothing.
    const first = Math.max(1, given.length);
    if (first > window || whole.length < 2) {
      throw new UsageError(
        `record ${r + 1}: its prompt has ${given.length} tokens, which leaves nothing to learn in a window of ${window}; take a larger \`window\``,
      );
    }
    if (whole.length > window + 1) cut++;
    tokens.set(whole.slice(0, window), r * window);
    for (let t = first; t < Math.min(whole.length, window + 1); t++) labels[r * window + t - 1] = whole[t];
    stage.advance(1);
  }
  return { tokens, labels, window, cut };
}

/** Records in random order, each once per epoch; a step's batch depends on seed and step alone. */
export class RecordWindows implements Windows {
  readonly #data: Batch;
  readonly count: number;

  /** @throws UsageError when there are fewer than a batch has */
  constructor(
    { tokens, labels, window }: RecordTokens,
    readonly batchSize: number,
    readonly seed: number,
  ) {
    this.count = tokens.length / window;
    const shape = [this.count, window];
    this.#data = { tokens: { shape, values: tokens }, label: { shape, values: labels } };
    if (this.count < batchSize) throw new UsageError(`${this.count} records, and a batch has ${batchSize}`);
  }

  batch(step: number): Batch {
    return flat(batchOfStep(this.#data, this.batchSize, this.seed, step));
  }

  *inOrder(most: number): Iterable<Batch> {
    for (let from = 0; from + this.batchSize <= Math.min(this.count, most); from += this.batchSize) {
      yield flat(
        takeRows(
          this.#data,
          Array.from({ length: this.batchSize }, (_, i) => from + i),
        ),
      );
    }
  }
}

/** Models take the tokens of all sequences in one row. */
const flat = (batch: Batch): Batch =>
  Object.fromEntries(Object.entries(batch).map(([name, { values }]) => [name, { shape: [values.length], values }]));
