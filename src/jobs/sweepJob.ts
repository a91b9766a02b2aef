import { rm } from "node:fs/promises";
import { join, relative, resolve, sep } from "node:path";
import * as z from "zod/mini";
import { parseRecipe, type Recipe } from "../compress/index.js";
import { FormatError, type JobOptions, quote, RarefyError, UsageError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { openCheckpoint, sha256Hex } from "../io/index.js";
import { lockPath, readText } from "../io/index.node.js";
import { devices } from "../kernels/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { loadTokenizer, type TokenizedText, type Tokenizer, tokenizeText } from "../text/index.js";
import { beginWindows } from "../text/internal.js";
import type { Job } from "./jobQueue.js";
import type { SweepCandidate } from "./sweepCandidates.js";
import { checkEntry, type SweepEntry } from "./sweepEntries.js";
import { candidateEntry, identityOf, keyOf, type Sweep } from "./sweepMeasure.js";
import type { JobText, SweepWorkers } from "./sweepWorkers.js";
import { modelUnderRoot, textUnderRoot } from "./underRoot.js";
import { packageVersion } from "./version.js";

/** What a worker does with jobs of sweeps. */
export interface SweepJobOptions extends JobOptions {
  /** Folder below which models and texts are looked for. */
  root: string;
  /** Folder for models while they are measured; what a killed worker left there is gone on with. */
  scratch: string;
  threads?: number;
}

/** Jobs of this kind are the candidates of sweeps. */
export const sweepJobKind = "sweep-candidate";

const sha256 = z.string().check(z.regex(/^[0-9a-f]{64}$/));
const path = z.string().check(z.minLength(1), z.maxLength(4096));
const count = z.int().check(z.minimum(1));
const oneOf = <T extends string>(values: readonly T[]) => z.enum(values as readonly [T, ...T[]]);
const jobText = z.strictObject({
  path,
  maxTokens: z.optional(count),
  beginWindows: z.optional(z.int().check(z.minimum(2))),
  tokensSha256: sha256,
});

/** Everything that decides an entry, and nothing of how it is to be computed but the device. */
const sweepJob = z.strictObject({
  version: z.string(),
  /** A name of files: no path. */
  name: z.string().check(z.regex(/^(?!\.)[A-Za-z0-9._-]{1,200}$/)),
  recipe: z.record(z.string(), z.unknown()),
  model: z.strictObject({
    path,
    configSha256: sha256,
    weightsSha256: sha256,
    artifactSha256: z.nullable(sha256),
  }),
  evaluation: jobText,
  calibration: z.optional(jobText),
  window: z.optional(z.int().check(z.minimum(2))),
  maxWindows: count,
  weights: z.optional(oneOf(Object.keys(weightFormats) as WeightFormatId[])),
  store: z.enum(["packed", "dense"]),
  dtype: z.optional(z.enum(["F32", "BF16", "F16"])),
  device: z.optional(oneOf(Object.keys(devices) as (keyof typeof devices)[])),
});

/**
 * The name under which workers find a file or folder: its path from the current directory.
 * @throws UsageError when it does not lie below that
 */
export function jobPath(argument: string): string {
  const name = relative(process.cwd(), resolve(argument)).split(sep).join("/");
  if (name === ".." || name.startsWith("../") || resolve(name) !== resolve(argument)) {
    throw new UsageError(
      `${quote(argument)} does not lie below the current directory; workers look for models and texts below theirs (--root)`,
    );
  }
  // What comes with the package has a name without a path.
  return `./${name}`;
}

/** What tells the tokens of a text from others. */
export const tokensSha256 = ({ tokens }: TokenizedText): Promise<string> => sha256Hex(tokens);

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
  let raw: unknown;
  try {
    raw = await queue.submit({ id: key, kind: sweepJobKind, payload }, signal);
  } catch (cause) {
    if (signal.aborted || !(cause instanceof RarefyError)) throw cause;
    throw new RarefyError(`candidate ${name}: ${cause.message}`, { cause });
  }
  const what = `the result of ${name}`;
  try {
    const entry = checkEntry(raw, what, "It was taken out of the queue: the same command has it measured again");
    if (entry.key === key && entry.name === name) return entry;
    throw new FormatError({ file: what, field: "key", problem: "belongs to other work" });
  } catch (error) {
    await queue.forget(key);
    throw error;
  }
}

/**
 * Makes and measures the candidate that a job describes.
 * @returns its entry, the same that a sweep makes itself
 * @throws FormatError for a payload that is none; UsageError for another version of rarefy, another model or text than that of the
 * sweep, and for files that are not below `root`
 */
export async function runSweepJob(job: Job, options: SweepJobOptions): Promise<SweepEntry> {
  const { root, threads, signal, onProgress } = options;
  const what = `job ${job.id}`;
  const key = checkSchema(sha256, job.id, what);
  const payload = checkSchema(sweepJob, job.payload, what);
  const { version, name, model, window, maxWindows, weights, store, dtype, device } = payload;
  if (version !== packageVersion()) {
    throw new UsageError(`this worker is rarefy ${packageVersion()}, and the sweep ${quote(version)}`);
  }
  const recipe = parseRecipe(payload.recipe, what);
  const source = await modelUnderRoot(root, model.path);
  const checkpoint = await openCheckpoint(source);
  const identity = await identityOf(checkpoint, { signal, onProgress }).finally(() => checkpoint.close());
  const { path: _, ...wanted } = model;
  for (const [field, hash] of Object.entries(wanted)) {
    if (identity[field as keyof typeof wanted] === hash) continue;
    throw new UsageError(`this worker has another model as ${quote(model.path)} (its ${field} differs)`);
  }
  const tokenizer = await loadTokenizer(source);
  const tokensOf = (text: JobText) => readJobText(root, tokenizer, text, options);
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
  // One that lost touch with the queue may still be at it.
  await using _lock = await lockPath(output, { signal, onWait() {} });
  try {
    const entry = await candidateEntry(sweep, { name, recipe }, key);
    await rm(output, { recursive: true, force: true });
    return entry;
  } catch (error) {
    if (!signal?.aborted) await rm(output, { recursive: true, force: true });
    throw error;
  }
}

async function readJobText(
  root: string,
  tokenizer: Tokenizer,
  { path, maxTokens, beginWindows: window, tokensSha256: wanted }: JobText,
  { signal, onProgress }: JobOptions,
): Promise<TokenizedText> {
  const text = await readText(await textUnderRoot(root, path));
  const tokens = await tokenizeText(tokenizer, text, { maxTokens, name: path, signal, onProgress });
  const begun = window === undefined ? tokens : beginWindows(tokens, tokenizer, window);
  if ((await tokensSha256(begun)) === wanted) return begun;
  throw new UsageError(`this worker has another text as ${quote(path)}, or another tokenizer`);
}
