import { join } from "node:path";
import * as z from "zod/mini";
import { FormatError, quote, UsageError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { sha256Hex } from "../io/index.js";
import { type Cell, type CellResult, type CellThreads, type Experiment, type Scale, scales } from "../train/index.js";
import { readTrainingText } from "../train/index.node.js";
import { planOf } from "../train/internal.js";
import { cellFiles, modelIdentity } from "./experimentFiles.js";
import { experiments } from "./experiments/index.js";
import {
  checkVersion,
  countSchema,
  inScratch,
  oneOfSchema,
  pathSchema,
  sha256Schema,
  type WorkplaceOptions,
} from "./jobParts.js";
import type { Job, JobQueue } from "./jobQueue.js";
import { resultOfWorker } from "./resultOfWorker.js";
import { modelUnderRoot, textUnderRoot } from "./underRoot.js";
import { packageVersion } from "./version.js";

/** Jobs of this kind are the cells of experiments. */
export const experimentJobKind = "experiment-cell";

/** A worker finds the cell among those that the experiment plans: settings that a queue makes up are none. */
const experimentJob = z.strictObject({
  version: z.string(),
  experiment: z.string().check(z.maxLength(200)),
  scale: oneOfSchema(scales),
  seeds: countSchema.check(z.maximum(1000)),
  key: z.string().check(z.maxLength(1000)),
  /** What the experiment reads, by name. */
  texts: z.array(z.strictObject({ name: z.string(), path: pathSchema, sha256: sha256Schema })).check(z.maxLength(100)),
  model: z.optional(z.strictObject({ path: pathSchema, identity: z.string().check(z.maxLength(1000)) })),
});
type Payload = z.infer<typeof experimentJob>;

/** Who computes the cells of an experiment, and under which names they find what they read. */
export interface ExperimentWorkers {
  queue: JobQueue;
  /** The model, as `jobPath` makes it. */
  model: string;
  /** Where a text of the experiment lies, likewise. */
  textPath(name: string): string;
}

const textSha256 = (text: string): Promise<string> => sha256Hex(new TextEncoder().encode(text));

/** Over all that decides what a cell gives, wherever its files lie. */
export const cellJobId = (cell: Cell, { version, experiment, texts, model }: Payload): Promise<string> =>
  sha256Hex(
    JSON.stringify([
      experimentJobKind,
      ...[version, experiment, [cell.key, cell.seed, cell.settings]],
      texts.map(({ name, sha256 }) => [name, sha256]),
      model?.identity ?? null,
    ]),
  );

/**
 * Cells as jobs of a queue, all at once.
 * @param readText the experiment's texts, as the caller has them
 * @throws UsageError for an experiment whose results are times
 */
export async function cellsOverQueue(
  experiment: Experiment,
  { queue, model, textPath }: ExperimentWorkers,
  options: { scale: Scale; seeds?: number; model?: string; readText(name: string): Promise<string> },
): Promise<CellThreads> {
  if (experiment.timed)
    throw new UsageError(`${experiment.id} measures time: its cells have one machine to themselves`);
  const { scale, seeds = experiment.seeds[scale] } = options;
  const texts = await Promise.all(
    (experiment.texts ?? []).map(async (name) => {
      return { name, path: textPath(name), sha256: await textSha256(await options.readText(name)) };
    }),
  );
  const all = { version: packageVersion(), experiment: experiment.id, scale, seeds, texts };
  const named = options.model === undefined ? all : { ...all, model: { path: model, identity: options.model } };
  return {
    count: Number.POSITIVE_INFINITY,
    async run(cell, { signal }) {
      const payload: Payload = { ...named, key: cell.key };
      const id = await cellJobId(cell, payload);
      const check = (raw: unknown) => checkSchema(z.record(z.string(), z.unknown()), raw, `the result of ${cell.key}`);
      return await resultOfWorker(queue, { id, kind: experimentJobKind, payload }, cell.key, check, signal);
    },
  };
}

/**
 * Computes the cell that a job names.
 * @returns its result, the same as without a queue
 * @throws FormatError for a payload that is none; UsageError for another version of rarefy, another model or text than the
 * experiment's, and for files that are not below `root`
 */
export async function runExperimentJob(job: Job, options: WorkplaceOptions): Promise<CellResult> {
  const { root, scratch, signal, onProgress } = options;
  const what = `job ${job.id}`;
  const id = checkSchema(sha256Schema, job.id, what);
  const payload = checkSchema(experimentJob, job.payload, what);
  checkVersion(payload.version, "experiment");
  if (!Object.hasOwn(experiments, payload.experiment)) {
    throw new FormatError({ file: what, field: "experiment", problem: `there is no ${quote(payload.experiment)}` });
  }
  const { experiment } = await experiments[payload.experiment]();
  if (experiment.timed) throw new UsageError(`${experiment.id} measures time, which no worker does`);
  const files = payload.model && (await modelUnderRoot(root, payload.model.path));
  if (files !== undefined && payload.model !== undefined) {
    const identity = await modelIdentity(files);
    if (identity !== payload.model.identity) {
      throw new UsageError(`this worker has another model as ${quote(payload.model.path)}`);
    }
  }
  const plan = planOf(experiment, { ...payload, model: payload.model?.identity });
  const cell = plan.find(({ key }) => key === payload.key);
  if (cell === undefined)
    throw new FormatError({ file: what, field: "key", problem: "is none of the experiment's cells" });
  if ((await cellJobId(cell, payload)) !== id) {
    throw new FormatError({ file: what, field: "id", problem: "is not that of its content" });
  }
  const readText = async (name: string): Promise<string> => {
    const text = payload.texts.find((text) => text.name === name);
    if (text === undefined) throw new FormatError({ file: what, field: "texts", problem: `has no ${quote(name)}` });
    const found = await readTrainingText(await textUnderRoot(root, text.path), signal);
    if ((await textSha256(found)) === text.sha256) return found;
    throw new UsageError(`this worker has another text as ${quote(text.path)}`);
  };
  const openModel = async () => {
    if (files === undefined) throw new FormatError({ file: what, field: "model", problem: "is not there" });
    return files;
  };
  const folder = join(scratch, id);
  return await inScratch(folder, signal, () =>
    experiment.run(cell, {
      ...{ device: "wasm", readText, openModel, signal, onProgress },
      state: cellFiles(folder).stateOf(cell),
    }),
  );
}
