import { appendFile, readFile, stat, truncate } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type JobOptions, RarefyError, Stage, StorageError, UsageError } from "../core/index.js";
import { sha256Hex } from "../io/index.js";
import { JobDirectory, lockPath, writeFileAtomic } from "../io/index.node.js";
import { type LessonSettings, Lessons, type RecordTeacher, type TeachingPrompt } from "../train/index.js";
import { headLine, type Outcome, outcomeLine, parseAnswerLog } from "./answerLog.js";
import { packageVersion } from "./version.js";

const logName = "answers.jsonl";

/** What becomes of prompts and answers, and how many are asked at once. */
export interface TeachToFileOptions extends LessonSettings, JobOptions {
  /** Questions under way at once. Default 1. */
  concurrency?: number;
  /** Replace a file that is there. */
  force?: boolean;
  /** Told how many answers an earlier run has left, where there are any. */
  onResume?(answers: number): void;
}

/** Records that a teacher wrote. */
export interface TaughtFile {
  output: string;
  teacher: string;
  form: LessonSettings["form"];
  questions: number;
  records: number;
  /** Of the records, those whose answer was cut at the most tokens. */
  unfinished: number;
  /** How many answers made no record, by reason. */
  leftOut: Readonly<Record<string, number>>;
}

/**
 * Has a teacher answer prompts and writes the records that a student is trained on, in the order of the prompts, whole or not at
 * all. Answers are kept in `OUT.run` as they come: killed or stopped, the same call asks only what is missing.
 * @param output a name that ends in .jsonl, as training knows records
 * @throws UsageError, BusyError, StorageError before the first question; what the teacher throws; when stopped, RarefyError that says
 * how to go on; RarefyError when no answer made a record
 */
export async function teachToFile(
  teacher: RecordTeacher,
  prompts: readonly TeachingPrompt[],
  output: string,
  options: TeachToFileOptions,
): Promise<TaughtFile> {
  const { concurrency = 1, force, onResume, signal, onProgress, ...settings } = options;
  const target = resolve(output);
  if (!target.endsWith(".jsonl"))
    throw new UsageError(`${output}: records are written to a file with a name in .jsonl`);
  if (!(Number.isSafeInteger(concurrency) && concurrency > 0)) throw new UsageError(`concurrency is ${concurrency}`);
  const lessons = new Lessons(prompts, settings);
  await using _lock = await lockPath(target);
  const decided = { version: packageVersion(), teacher: teacher.identity, prompts, settings };
  const job = await sha256Hex(JSON.stringify(decided));
  const run = new JobDirectory(`${target}.run`, "teach", (name) => name === logName);
  const path = join(run.path, logName);
  await run.clearBeside();
  const mayEnd = force || (await isAnswered(path, job, lessons.count));
  await refuseExisting(target, output, mayEnd);
  await run.open();
  const outcomes = await storedOutcomes(path, job, lessons.count);
  if (outcomes.size > 0) onResume?.(outcomes.size);
  const missing = Array.from({ length: lessons.count }, (_, i) => i).filter((i) => !outcomes.has(i));
  const stage = new Stage("teach", missing.length, "answers", onProgress);
  // One line after the other; none behind a line that could not be written whole.
  let writing = Promise.resolve();
  try {
    await eachOf(missing, concurrency, signal, async (question, signal) => {
      const answer = await teacher.answer(lessons.question(question), signal);
      const outcome = lessons.record(question, answer);
      writing = writing.then(() => append(path, outcomeLine(question, outcome)));
      await writing;
      outcomes.set(question, outcome);
      stage.advance(1);
    });
  } catch (cause) {
    if (signal?.aborted !== true) throw cause;
    const done = `${run.path} holds ${outcomes.size} of ${lessons.count} answers`;
    throw new RarefyError(`${done}; the same command goes on from there.`, { cause });
  }
  const result = inWords(outcomes, lessons);
  if (result.lines.length === 0) {
    throw new RarefyError(`no answer made a record: ${JSON.stringify(result.leftOut)}. ${run.path} holds them`);
  }
  const bytes = new TextEncoder().encode(result.lines.join(""));
  // What was killed after the records had their name, and before their answers were removed, made the file that is there.
  if (!(await isFile(target, bytes))) {
    await refuseExisting(target, output, force);
    await writeFileAtomic(target, bytes);
  }
  await run.remove();
  const { lines, leftOut, unfinished } = result;
  const { form } = settings;
  return {
    output,
    teacher: teacher.location,
    form,
    questions: lessons.count,
    records: lines.length,
    unfinished,
    leftOut,
  };
}

/** @throws UsageError for a directory, and for a file that may not be replaced */
async function refuseExisting(target: string, output: string, force: boolean | undefined): Promise<void> {
  const found = await stat(target).catch(() => undefined);
  if (found?.isDirectory()) throw new UsageError(`${output} is a directory; name a file`);
  if (found !== undefined && force !== true) {
    throw new UsageError(`${output} is there already; name another file, or replace it (\`force\`)`);
  }
}

const isFile = (path: string, bytes: Uint8Array): Promise<boolean> =>
  readFile(path).then(
    (found) => found.equals(bytes),
    () => false,
  );

/** Whether the same job has stored all of its answers. */
async function isAnswered(path: string, job: string, count: number): Promise<boolean> {
  try {
    const log = parseAnswerLog(await readFile(path), path, count);
    return log?.job === job && log.outcomes.size === count;
  } catch {
    return false;
  }
}

/** What an earlier run of the same job was answered; the file ends in a whole line afterwards. */
async function storedOutcomes(path: string, job: string, count: number): Promise<Map<number, Outcome>> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return new Uint8Array();
    throw error;
  });
  const log = parseAnswerLog(bytes, path, count);
  if (log === undefined) {
    await writeFileAtomic(path, new TextEncoder().encode(headLine(job)));
    return new Map();
  }
  if (log.job !== job) {
    throw new UsageError(
      `${path} holds answers to other prompts, or of other settings; give the same options to go on, or remove its directory`,
    );
  }
  if (log.wholeBytes < bytes.length) await truncate(path, log.wholeBytes);
  return log.outcomes;
}

/** @throws StorageError */
async function append(path: string, line: string): Promise<void> {
  try {
    await appendFile(path, line);
  } catch (cause) {
    const { code = "unknown", message } = cause as NodeJS.ErrnoException;
    throw new StorageError(`${path} cannot be written: ${message}`, { cause, code });
  }
}

/** Works on some at once, begun in their order; the first that fails stops the others. */
async function eachOf(
  questions: readonly number[],
  atOnce: number,
  outer: AbortSignal | undefined,
  work: (question: number, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const signal = outer === undefined ? failed.signal : AbortSignal.any([outer, failed.signal]);
  const left = questions.values();
  const worker = async () => {
    // All workers draw from the one iterator.
    for (const question of left) {
      signal.throwIfAborted();
      await work(question, signal);
    }
  };
  const stopping = async () => {
    try {
      await worker();
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: atOnce }, stopping));
  if (ended.some(({ status }) => status === "rejected")) signal.throwIfAborted();
}

/** Lines of the records in the order of the questions, and what became of the others. */
function inWords(outcomes: ReadonlyMap<number, Outcome>, { count }: Lessons) {
  const lines: string[] = [];
  const leftOut: Record<string, number> = {};
  let unfinished = 0;
  for (let question = 0; question < count; question++) {
    const outcome = outcomes.get(question)!;
    if ("leftOut" in outcome) {
      leftOut[outcome.leftOut] = (leftOut[outcome.leftOut] ?? 0) + 1;
      continue;
    }
    if (outcome.unfinished) unfinished++;
    lines.push(`${JSON.stringify(outcome)}\n`);
  }
  return { lines, leftOut, unfinished };
}
