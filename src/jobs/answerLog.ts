import * as z from "zod/mini";
import { FormatError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { parseJson } from "../io/index.js";
import type { TrainingRecord } from "../train/index.js";
import { recordSchema } from "../train/internal.js";

/** What became of a question: a record, or why there is none. */
export type Outcome = TrainingRecord | { leftOut: string };

const headSchema = z.strictObject({
  rarefyAnswers: z.literal(1),
  /** SHA-256 over all that decides the answers. */
  job: z.string().check(z.regex(/^[0-9a-f]{64}$/)),
});

const lineSchema = z.strictObject({
  question: z.int().check(z.minimum(0)),
  outcome: z.union([recordSchema, z.strictObject({ leftOut: z.string().check(z.minLength(1), z.maxLength(400)) })]),
});

export const headLine = (job: string) => `${JSON.stringify({ rarefyAnswers: 1, job })}\n`;
export const outcomeLine = (question: number, outcome: Outcome) => `${JSON.stringify({ question, outcome })}\n`;

/** What a file of answers holds. */
export interface AnswerLog {
  job: string;
  /** By question. */
  outcomes: Map<number, Outcome>;
  /** Bytes of whole lines: what stands behind them was being written when the process ended. */
  wholeBytes: number;
}

/**
 * Answers as they came, one a line, in any order.
 * @param count questions that there are
 * @returns undefined where not even the first line is whole
 * @throws FormatError naming the line
 */
export function parseAnswerLog(bytes: Uint8Array, file: string, count: number): AnswerLog | undefined {
  const wholeBytes = bytes.lastIndexOf(0x0a) + 1;
  const outcomes = new Map<number, Outcome>();
  let job: string | undefined;
  for (let [from, line] = [0, 1]; from < wholeBytes; line++) {
    const to = bytes.indexOf(0x0a, from);
    const place = `${file}, line ${line}`;
    const hint = "Remove its directory to begin anew";
    const value = parseJson(bytes.subarray(from, to), place, { depth: 16, values: 8192 });
    from = to + 1;
    if (job === undefined) {
      job = checkSchema(headSchema, value, place, hint).job;
      continue;
    }
    const { question, outcome } = checkSchema(lineSchema, value, place, hint);
    if (question >= count || outcomes.has(question)) {
      const problem = question >= count ? `question ${question}, of ${count}` : `question ${question} a second time`;
      throw new FormatError({ file: place, field: "question", problem, hint });
    }
    outcomes.set(question, outcome);
  }
  return job === undefined ? undefined : { job, outcomes, wholeBytes };
}
