import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type JobOptions, NetworkError, Stage, UsageError } from "../core/index.js";
import { bundledModel, isBundledModel } from "./bundled.node.js";
import type { LocalModelFiles } from "./byteSource.js";
import { directoryFiles, openFile } from "./file.node.js";
import { isPlainFileName } from "./fileName.js";
import { localGgufFiles } from "./gguf/local.node.js";
import { HubCache, type HubId, isCommit, isFile } from "./hubCache.node.js";
import { HubClient, type RemoteFile } from "./hubClient.node.js";
import { downloadBlob } from "./hubDownload.node.js";
import { chooseGguf, ggufFilesAmong, ggufParts, parseHubFile } from "./hubGguf.node.js";
import { type Environment, type HubSettings, readHubSettings } from "./hubSettings.node.js";
import { parseJson } from "./json.js";
import { descriptionFileNames, isCompanionFile } from "./modelFileNames.js";
import { lockPath } from "./output/lock.node.js";
import { finishReplacement } from "./output/replace.node.js";
import { indexFileName, shardsOf, singleFileName } from "./placeTensors.js";
import type { RetryOptions } from "./retry.js";

/** Where the Hub and its cache are, and how often a request is tried. */
export interface ResolveOptions extends JobOptions, RetryOptions {
  /** Default: `process.env`. Read: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and their elders. */
  env?: Environment;
}

/**
 * The files a model argument names: those of an existing directory, a .gguf file seen as one, those of a model that comes with
 * the package (`tiny-6m`), or those of a model on the Hugging Face Hub
 * (`org/name[@revision]`), downloaded into the cache that all Hugging Face tools share unless they are there.
 * @throws UsageError when it names neither, or the Hub refuses; NetworkError when the Hub cannot be reached and the model
 * is not cached; FormatError when a download is damaged
 */
export async function resolveModel(argument: string, options: ResolveOptions = {}): Promise<LocalModelFiles> {
  const found = await stat(argument).catch(() => undefined);
  if (found?.isDirectory()) return directoryFiles(argument);
  if (found !== undefined) {
    if (await isGguf(argument)) return localGgufFiles(argument);
    throw new UsageError(
      `${argument} is a file and no GGUF file; give a GGUF file, or the directory that holds the weights with their config.json`,
    );
  }
  // A process that was replacing it may have been killed between two renames.
  if (await finishReplacement(argument)) return resolveModel(argument, options);
  if (isBundledModel(argument)) return directoryFiles(bundledModel(argument));
  const { file, ...id } = parseHubFile(argument);
  const settings = await readHubSettings(options.env ?? process.env);
  const cache = new HubCache(settings.cache, id.repository);
  const { commit, gguf } = await findOrFetch(id, file, settings, cache, options);
  const location = `${id.repository}@${isCommit(id.revision) ? commit.slice(0, 8) : id.revision}`;
  if (gguf !== undefined) return localGgufFiles(join(cache.snapshot(commit), gguf), `${location}/${gguf}`);
  return directoryFiles(cache.snapshot(commit), location);
}

/** A model of the Hub in a commit; where it is a GGUF file, its name there. */
interface Snapshot {
  commit: string;
  gguf?: string;
}

/** By its first bytes (files of Ollama have no extension), or by its name, whose reader says what it is instead. */
async function isGguf(path: string): Promise<boolean> {
  if (/\.gguf$/i.test(path)) return true;
  const source = await openFile(path);
  if (source === undefined) return false;
  try {
    return source.byteLength >= 4 && new TextDecoder().decode(await source.read(0, 4)) === "GGUF";
  } finally {
    await source.close();
  }
}

async function findOrFetch(
  id: HubId,
  file: string | undefined,
  settings: HubSettings,
  cache: HubCache,
  options: ResolveOptions,
): Promise<Snapshot> {
  const cached = await cache.commitOf(id.revision);
  const usable = cached === undefined ? undefined : await cachedSnapshot(cache, cached, file);
  // A commit never changes; a branch may.
  const fixed = isCommit(id.revision) && usable !== undefined;
  const whole = async (found: Snapshot) =>
    found.gguf !== undefined || (await isFile(join(cache.snapshot(found.commit), "tokenizer.json")));
  if (fixed && (await whole(usable))) return usable;
  if (settings.offline) {
    if (usable !== undefined) return usable;
    throw new UsageError(
      `${id.repository} (${id.revision}) is not complete in the cache ${settings.cache} and HF_HUB_OFFLINE is set; ` +
        "unset it to download the model",
    );
  }
  try {
    await using _lock = await lockPath(cache.lock, {
      signal: options.signal,
      onWait: () => options.onProgress?.(waitingFor(id.repository)),
    });
    return await fetchSnapshot(new HubClient(settings, id, options), file, cache, options);
  } catch (error) {
    if (!(error instanceof NetworkError)) throw error;
    if (usable === undefined) {
      const advice =
        error.status === 429
          ? "the Hub limits requests: wait and give the command again, or set HF_TOKEN to a token, which raises the limit"
          : "check the connection, or set HF_ENDPOINT to a mirror";
      throw new NetworkError(
        `there is no directory ${id.repository}, and as a model of the Hub: ${error.message}; ${advice}. ` +
          "A download goes on where it stopped",
        { cause: error, status: error.status, retryAfterMs: error.retryAfterMs },
      );
    }
    options.onProgress?.({
      stage: `the Hub cannot be reached, using the cached ${id.repository}`,
      done: 1,
      total: 1,
      unit: "models",
      elapsedMs: 0,
    });
    return usable;
  }
}

const waitingFor = (repository: string) => ({
  stage: `another process is downloading ${repository}, waiting for it`,
  done: 0,
  unit: "models",
  elapsedMs: 0,
});

/** Small files that the model, its tokenizer or its licence consist of. */
const isSmallFile = (name: string) => isCompanionFile(name) || descriptionFileNames.includes(name);

async function cachedSnapshot(
  cache: HubCache,
  commit: string,
  file: string | undefined,
): Promise<Snapshot | undefined> {
  if (file === undefined && (await cache.isComplete(commit))) return { commit };
  const names = await cache.namesOf(commit);
  const gguf = file === undefined ? undefined : chooseGguf(names, file);
  return gguf !== undefined && ggufParts(gguf).every((part) => names.includes(part)) ? { commit, gguf } : undefined;
}

async function fetchSnapshot(
  client: HubClient,
  file: string | undefined,
  cache: HubCache,
  options: ResolveOptions,
): Promise<Snapshot> {
  const { revision } = client.id;
  const { commit, names } = await client.list();
  const single = names.includes(singleFileName);
  const safetensors = names.includes("config.json") && (single || names.includes(indexFileName));
  if (file !== undefined || !safetensors) {
    const gguf = chooseGguf(names, file);
    if (gguf === undefined) throw nothingToLoad(client.id, names, file);
    await fetchFiles(client, cache, commit, ggufParts(gguf), options);
    await cache.remember(revision, commit);
    return { commit, gguf };
  }
  const small = names.filter((name) => isSmallFile(name) && isPlainFileName(name));
  await fetchFiles(client, cache, commit, single ? small : [...small, indexFileName], options);
  // Weights come last: where they are complete, all is.
  await fetchFiles(client, cache, commit, single ? [singleFileName] : await shardNames(cache, commit), options);
  await cache.remember(revision, commit);
  return { commit };
}

function nothingToLoad(
  { repository, revision }: HubId,
  names: readonly string[],
  file: string | undefined,
): UsageError {
  const found = ggufFilesAmong(names);
  const listed = `${found.slice(0, 20).join(", ")}${found.length > 20 ? ", …" : ""}`;
  if (found.length > 0) {
    const what = file === undefined ? `holds ${found.length} GGUF files` : `has no GGUF file ${file}; it holds`;
    return new UsageError(`${repository} (${revision}) ${what}: ${listed}; name one, as in ${repository}/${found[0]}`);
  }
  return new UsageError(
    `${repository} (${revision}) has no config.json with ${singleFileName} or ${indexFileName}, and no .gguf file; ` +
      "only safetensors models in Hugging Face layout and GGUF files can be loaded",
  );
}

async function shardNames(cache: HubCache, commit: string): Promise<string[]> {
  const path = join(cache.snapshot(commit), indexFileName);
  return [...shardsOf(parseJson(await readFile(path), path), path).keys()];
}

async function fetchFiles(
  client: HubClient,
  cache: HubCache,
  commit: string,
  names: readonly string[],
  options: ResolveOptions,
): Promise<void> {
  const missing: RemoteFile[] = [];
  for (const name of names) {
    options.signal?.throwIfAborted();
    if (!(await isFile(join(cache.snapshot(commit), name)))) missing.push(await client.describe(commit, name));
  }
  const total = missing.reduce((sum, file) => sum + file.byteLength, 0);
  const stage = new Stage(`download ${client.id.repository}`, total, "bytes", options.onProgress);
  for (const file of missing) {
    options.signal?.throwIfAborted();
    await downloadBlob(client, file, cache.blob(file.blobName), stage);
    await cache.place(commit, file.name, file.blobName);
  }
}
