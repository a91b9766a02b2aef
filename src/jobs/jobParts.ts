import { rm } from "node:fs/promises";
import { relative, resolve, sep } from "node:path";
import * as z from "zod/mini";
import { type JobOptions, quote, UsageError } from "../core/index.js";
import { type LocalModelFiles, type ModelFiles, openCheckpoint, sha256Hex } from "../io/index.js";
import { lockPath, readText } from "../io/index.node.js";
import { type TokenizedText, type Tokenizer, tokenizeText } from "../text/index.js";
import { beginWindows } from "../text/internal.js";
import { identityOf, type SourceIdentity } from "./sweepMeasure.js";
import type { JobText } from "./sweepWorkers.js";
import { modelUnderRoot, textUnderRoot } from "./underRoot.js";
import { packageVersion } from "./version.js";

/** What payloads of several kinds of jobs have, and how a worker comes to it. Nothing in them is trusted. */

/** What a worker does jobs with. */
export interface WorkplaceOptions extends JobOptions {
  /** Folder below which models and texts are looked for. */
  root: string;
  /** Folder for what is made meanwhile; what a killed worker left there is gone on with. */
  scratch: string;
  threads?: number;
}

export const sha256Schema = z.string().check(z.regex(/^[0-9a-f]{64}$/));
export const pathSchema = z.string().check(z.minLength(1), z.maxLength(4096));
export const countSchema = z.int().check(z.minimum(1));
export const oneOfSchema = <T extends string>(values: readonly T[]) => z.enum(values as readonly [T, ...T[]]);

export const jobTextSchema = z.strictObject({
  path: pathSchema,
  maxTokens: z.optional(countSchema),
  beginWindows: z.optional(z.int().check(z.minimum(2))),
  tokensSha256: sha256Schema,
});

export const jobModelSchema = z.strictObject({
  path: pathSchema,
  configSha256: sha256Schema,
  weightsSha256: sha256Schema,
  artifactSha256: z.nullable(sha256Schema),
});

/**
 * The name under which workers find a file or folder: its path from the current directory.
 * @throws UsageError when it does not lie below that
 */
export function jobPath(argument: string): string {
  const name = relative(process.cwd(), resolve(argument)).split(sep).join("/");
  if (name === ".." || name.startsWith("../") || resolve(name) !== resolve(argument)) {
    throw new UsageError(
      `${quote(argument)} does not lie below the current directory; workers look for models and texts below theirs (\`root\`)`,
    );
  }
  // What comes with the package has a name without a path.
  return `./${name}`;
}

/** What tells the tokens of a text from others. */
export const tokensSha256 = ({ tokens }: TokenizedText): Promise<string> => sha256Hex(tokens);

/** @throws UsageError for work that another version gave */
export function checkVersion(version: string, of: string): void {
  if (version === packageVersion()) return;
  throw new UsageError(`this worker is rarefy ${packageVersion()}, and the ${of} ${quote(version)}`);
}

/** A model as jobs name it. @param path as `jobPath` makes it */
export async function jobModelOf(
  files: ModelFiles,
  path: string,
  job: JobOptions = {},
): Promise<z.infer<typeof jobModelSchema>> {
  const checkpoint = await openCheckpoint(files);
  return { path, ...(await identityOf(checkpoint, job).finally(() => checkpoint.close())) };
}

/** The model that a job names. @throws UsageError for another one than that, or where it does not lie below `root` */
export async function jobModel(
  { path, ...wanted }: z.infer<typeof jobModelSchema>,
  { root, signal, onProgress }: WorkplaceOptions,
): Promise<{ source: LocalModelFiles; identity: SourceIdentity }> {
  const source = await modelUnderRoot(root, path);
  const { path: _, ...identity } = await jobModelOf(source, path, { signal, onProgress });
  for (const [field, hash] of Object.entries(wanted)) {
    if (identity[field as keyof typeof wanted] === hash) continue;
    throw new UsageError(`this worker has another model as ${quote(path)} (its ${field} differs)`);
  }
  return { source, identity };
}

/** The tokens that a job names. @throws UsageError for others than those, or where their text does not lie below `root` */
export async function jobTokens(
  tokenizer: Tokenizer,
  { path, maxTokens, beginWindows: window, tokensSha256: wanted }: JobText,
  { root, signal, onProgress }: WorkplaceOptions,
): Promise<TokenizedText> {
  const text = await readText(await textUnderRoot(root, path));
  const tokens = await tokenizeText(tokenizer, text, { maxTokens, name: path, signal, onProgress });
  const begun = window === undefined ? tokens : beginWindows(tokens, tokenizer, window);
  if ((await tokensSha256(begun)) === wanted) return begun;
  throw new UsageError(`this worker has another text as ${quote(path)}, or another tokenizer`);
}

/** Works in a folder of a job's own, which goes with its end unless the worker was told to stop. */
export async function inScratch<T>(
  folder: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  // One that lost touch with the queue may still be at it.
  await using _lock = await lockPath(folder, { signal, onWait() {} });
  try {
    const result = await work();
    await rm(folder, { recursive: true, force: true });
    return result;
  } catch (error) {
    if (!signal?.aborted) await rm(folder, { recursive: true, force: true });
    throw error;
  }
}
