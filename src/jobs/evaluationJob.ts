import * as z from "zod/mini";
import { FormatError, quote, UsageError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { conventions, evaluateQuality, type ResultRow, resultRow } from "../eval/index.js";
import { needsBegin } from "../eval/internal.js";
import { type ModelFiles, sha256Hex } from "../io/index.js";
import { devices } from "../kernels/index.js";
import { checkSound } from "../model/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { openModel } from "../pipeline/index.js";
import { resultRowSchema } from "../report/internal.js";
import { parseAttention, parseKv } from "../runtime/index.js";
import { measureTasks, openTaskMeasure } from "../tasks/index.js";
import { loadTokenizer } from "../text/index.js";
import { beginToken } from "../text/internal.js";
import {
  checkVersion,
  countSchema,
  jobModel,
  jobModelSchema,
  jobTextSchema,
  jobTokens,
  oneOfSchema,
  pathSchema,
  sha256Schema,
  type WorkplaceOptions,
} from "./jobParts.js";
import type { Job, JobQueue } from "./jobQueue.js";
import { resultOfWorker } from "./resultOfWorker.js";
import { taskFilesUnderRoot } from "./underRoot.js";
import { packageVersion } from "./version.js";

/** Jobs of this kind measure a model on a text, or by a task. */
export const evaluationJobKind = "evaluation";

const choice = z.string().check(z.minLength(1), z.maxLength(500));

const evaluationText = z.strictObject({
  ...jobTextSchema.shape,
  convention: oneOfSchema(conventions),
  window: z.int().check(z.minimum(2)),
  stride: z.optional(countSchema),
  maxWindows: z.optional(countSchema),
  promptTokens: z.optional(z.int().check(z.minimum(0))),
});

const evaluationTask = z.strictObject({
  /** Of the folder that the tasks lie in, and of that of their data. */
  folder: pathSchema,
  data: z.optional(pathSchema),
  name: pathSchema,
  shots: z.optional(z.int().check(z.minimum(0), z.maximum(1000))),
  limit: z.optional(z.number().check(z.positive())),
  seed: z.optional(z.int().check(z.minimum(0))),
  chat: z.optional(z.boolean()),
  resamples: z.optional(z.int().check(z.minimum(0), z.maximum(1e7))),
  /** Over what is asked, of each task that the name stands for. */
  asked: z.array(sha256Schema).check(z.minLength(1), z.maxLength(4096)),
});

/** How the model runs. */
const evaluationSettings = z.strictObject({
  bos: z.optional(z.boolean()),
  prefill: z.union([z.enum(["dense", "secondHalf"]), z.strictObject({ denseFirst: z.int().check(z.minimum(0)) })]),
  attention: z.optional(choice),
  kv: z.optional(choice),
  weights: z.optional(oneOfSchema(Object.keys(weightFormats) as WeightFormatId[])),
  device: z.optional(oneOfSchema(Object.keys(devices) as (keyof typeof devices)[])),
});

/** A text or a task, and nothing of how it is to be computed but the device. */
const evaluationJob = z.strictObject({
  version: z.string(),
  model: jobModelSchema,
  text: z.optional(evaluationText),
  task: z.optional(evaluationTask),
  settings: evaluationSettings,
});
type Payload = z.infer<typeof evaluationJob>;

/** A text on which a model is measured, as workers find it. */
export type EvaluationText = z.infer<typeof evaluationText>;
/** A task by which a model is measured, likewise. */
export type EvaluationTask = z.infer<typeof evaluationTask>;

/** A model that workers measure. */
export interface QueuedEvaluation extends z.infer<typeof evaluationSettings> {
  queue: JobQueue;
  /** Its name in the row. */
  name: string;
  model: z.infer<typeof jobModelSchema>;
  text?: EvaluationText;
  /** Each is a job of its own. */
  tasks?: readonly EvaluationTask[];
  signal?: AbortSignal;
}

/** Over all that decides the figures, wherever files lie. */
export function evaluationJobId({ version, model, text, task, settings }: Payload): Promise<string> {
  const { path: _model, ...identity } = model;
  const { path: _text, ...cut } = text ?? {};
  const { folder: _folder, data: _data, ...asked } = task ?? {};
  const sorted = (of: object) => Object.entries(of).sort(([a], [b]) => (a < b ? -1 : 1));
  return sha256Hex(JSON.stringify([evaluationJobKind, version, ...[identity, cut, asked, settings].map(sorted)]));
}

/**
 * The row of a model, its text and each of its tasks measured by whichever workers take them: that of an evaluation here.
 * @throws RarefyError with what a worker says of its failure
 */
export async function evaluateOverQueue(evaluation: QueuedEvaluation): Promise<ResultRow> {
  const { queue, name, model, text, tasks = [], signal, ...settings } = evaluation;
  const version = packageVersion();
  const how = checkSchema(evaluationSettings, plain(settings), "the settings of an evaluation");
  const payloads: Payload[] = [
    ...(text === undefined ? [] : [{ version, model, text, settings: how }]),
    ...tasks.map((task) => ({ version, model, task, settings: how })),
  ];
  if (payloads.length === 0) throw new UsageError("an evaluation of no text and no tasks");
  const rows = await Promise.all(payloads.map((payload) => rowFromWorker(queue, plain(payload), signal)));
  const figures = rows.flatMap(({ tasks = [] }) => tasks);
  return { ...rows[0], model: name, ...(figures.length > 0 && { tasks: figures }) };
}

/** As it lies in the queue: without fields that are undefined. */
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value));

async function rowFromWorker(queue: JobQueue, payload: Payload, signal?: AbortSignal): Promise<ResultRow> {
  const what = payload.task === undefined ? "the text" : `task ${payload.task.name}`;
  const id = await evaluationJobId(payload);
  const check = (raw: unknown) => {
    checkSchema(resultRowSchema, raw, `the result of ${what}`, "It was taken out of the queue: ask again");
    return raw as ResultRow;
  };
  return await resultOfWorker(queue, { id, kind: evaluationJobKind, payload }, what, check, signal);
}

/**
 * Measures the model that a job describes.
 * @returns its row, the same as without a queue
 * @throws FormatError for a payload that is none; UsageError for another version of rarefy, another model, text or task than that
 * of who asked, and for files that are not below `root`
 */
export async function runEvaluationJob(job: Job, options: WorkplaceOptions): Promise<ResultRow> {
  const { threads, signal, onProgress } = options;
  const what = `job ${job.id}`;
  const id = checkSchema(sha256Schema, job.id, what);
  const payload = checkSchema(evaluationJob, job.payload, what);
  const { version, model, text, task, settings } = payload;
  checkVersion(version, "evaluation");
  if ((text === undefined) === (task === undefined)) {
    throw new FormatError({ file: what, field: "task", problem: "beside a text, or in place of none" });
  }
  if ((await evaluationJobId(payload)) !== id) {
    throw new FormatError({ file: what, field: "id", problem: "is not that of its content" });
  }
  const { source } = await jobModel(model, options);
  const tokenizer = await loadTokenizer(source);
  const tokens = text && (await jobTokens(tokenizer, text, options));
  const measure = task && (await taskMeasure(source, task, settings, options));
  const { weights, device, prefill, bos } = settings;
  const own = { attention: settings.attention, kv: settings.kv };
  const asked = {
    attention: own.attention === undefined ? undefined : parseAttention(own.attention),
    kv: own.kv === undefined ? undefined : parseKv(own.kv),
  };
  using opened = await openModel(source, { weights, device, threads, signal, onProgress });
  checkSound(opened.model);
  const { attention = opened.attention, kv = opened.kv } = asked;
  const { model: loaded, exits } = opened;
  const variant = { name: "model", model: loaded, thresholds: loaded.thresholds, attention, kv, exits };
  const qualities =
    tokens && text && (await evaluateQuality([variant], tokens, { ...cutOf(text), signal, onProgress }));
  const tasks = measure && (await measureTasks(variant, measure, { signal, onProgress }));
  return resultRow({ ...variant, model: variant.name, weights: loaded.weights, quality: qualities?.[0], tasks });

  function cutOf({ convention, window, stride, maxWindows, promptTokens }: EvaluationText) {
    const begin = bos || needsBegin(convention) ? beginToken(tokenizer) : undefined;
    return { convention, window, stride, maxWindows, promptTokens, begin, prefill };
  }
}

async function taskMeasure(
  source: ModelFiles,
  { folder, data, name, shots, limit, seed, chat, resamples, asked }: EvaluationTask,
  { prefill, bos }: Payload["settings"],
  { root, signal }: WorkplaceOptions,
) {
  const own = await taskFilesUnderRoot(root, folder);
  const folders = { tasks: own, ...(data !== undefined && { data: await taskFilesUnderRoot(root, data) }) };
  const measure = await openTaskMeasure(source, folders, [name], {
    ...{ shots, limit, seed, chat, resamples, signal },
    tokenizer: await loadTokenizer(source),
    scorer: { prefill, bos },
  });
  const found = measure.tasks.map(({ sha256 }) => sha256);
  if (found.join() === asked.join()) return measure;
  throw new UsageError(`this worker has another task, or other data, as ${quote(name)}`);
}
