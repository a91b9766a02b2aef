import { join } from "node:path";
import * as z from "zod/mini";
import { parseRecipe, type Recipe } from "../compress/index.js";
import { FormatError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { devices } from "../kernels/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { loadTokenizer } from "../text/index.js";
import {
  checkVersion,
  countSchema,
  inScratch,
  jobModel,
  jobModelSchema,
  jobTextSchema,
  jobTokens,
  oneOfSchema,
  sha256Schema,
  type WorkplaceOptions,
} from "./jobParts.js";
import type { Job } from "./jobQueue.js";
import { resultOfWorker } from "./resultOfWorker.js";
import type { SweepCandidate } from "./sweepCandidates.js";
import { checkEntry, type SweepEntry } from "./sweepEntries.js";
import { candidateEntry, keyOf, type Sweep } from "./sweepMeasure.js";
import type { JobText, SweepWorkers } from "./sweepWorkers.js";
import { packageVersion } from "./version.js";

/** Jobs of this kind are the candidates of sweeps. */
export const sweepJobKind = "sweep-candidate";

/** Everything that decides an entry, and nothing of how it is to be computed but the device. */
const sweepJob = z.strictObject({
  version: z.string(),
  /** A name of files: no path. */
  name: z.string().check(z.regex(/^(?!\.)[A-Za-z0-9._-]{1,200}$/)),
  recipe: z.record(z.string(), z.unknown()),
  model: jobModelSchema,
  evaluation: jobTextSchema,
  calibration: z.optional(jobTextSchema),
  window: z.optional(z.int().check(z.minimum(2))),
  maxWindows: countSchema,
  weights: z.optional(oneOfSchema(Object.keys(weightFormats) as WeightFormatId[])),
  store: z.optional(z.enum(["packed", "dense"])),
  dtype: z.optional(z.enum(["F32", "BF16", "F16"])),
  device: z.optional(oneOfSchema(Object.keys(devices) as (keyof typeof devices)[])),
});

/** The entry of a candidate, made by whichever worker takes it. @throws RarefyError with what the worker says of its failure */
export async function entryFromWorker(
  { options, identity }: Sweep,
  { queue, model, evaluation, calibration }: SweepWorkers,
  { name, recipe }: SweepCandidate,
  key: string,
  signal: AbortSignal,
): Promise<SweepEntry> {
  const { window, maxWindows, weights, store, dtype, device } = options;
  const how = { window, maxWindows, weights, store, dtype, device };
  const payload = {
    version: packageVersion(),
    ...{ name, recipe, model: { path: model, ...identity }, evaluation, calibration, ...how },
  };
  const check = (raw: unknown) => {
    const what = `the result of ${name}`;
    const entry = checkEntry(raw, what, "It was taken out of the queue: the same command has it measured again");
    if (entry.key === key && entry.name === name) return entry;
    throw new FormatError({ file: what, field: "key", problem: "belongs to other work" });
  };
  return await resultOfWorker(queue, { id: key, kind: sweepJobKind, payload }, `candidate ${name}`, check, signal);
}

/**
 * Makes and measures the candidate that a job describes.
 * @returns its entry, the same that a sweep makes itself
 * @throws FormatError for a payload that is none; UsageError for another version of rarefy, another model or text than that of the
 * sweep, and for files that are not below `root`
 */
export async function runSweepJob(job: Job, options: WorkplaceOptions): Promise<SweepEntry> {
  const { threads, signal, onProgress } = options;
  const what = `job ${job.id}`;
  const key = checkSchema(sha256Schema, job.id, what);
  const payload = checkSchema(sweepJob, job.payload, what);
  const { version, name, window, maxWindows, weights, store, dtype, device } = payload;
  checkVersion(version, "sweep");
  const recipe = parseRecipe(payload.recipe, what);
  const { source, identity } = await jobModel(payload.model, options);
  const tokenizer = await loadTokenizer(source);
  const tokensOf = (text: JobText) => jobTokens(tokenizer, text, options);
  const output = join(options.scratch, key);
  const sweep: Sweep = {
    source,
    output,
    identity,
    options: {
      candidates: [],
      evaluation: await tokensOf(payload.evaluation),
      calibration: payload.calibration && (await tokensOf(payload.calibration)),
      ...{ window, maxWindows, weights, store, dtype, device, threads, signal, onProgress },
    },
  };
  // As it stands in the job: a recipe that was read has its fields in another order.
  if ((await keyOf(sweep, { name, recipe: payload.recipe as unknown as Recipe })) !== key) {
    throw new FormatError({ file: what, field: "id", problem: "is not that of its content" });
  }
  return await inScratch(output, signal, () => candidateEntry(sweep, { name, recipe }, key));
}
