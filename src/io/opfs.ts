import { breathe, DeviceError, FormatError, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { FileSinks } from "./byteSink.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { ggufFileName, ggufPartName } from "./gguf/names.js";
import { readJsonFile } from "./json.js";
import { descriptionFileNames } from "./modelFileNames.js";
import {
  type DirectoryHandle,
  directoryFiles,
  directorySinks,
  openForWriting,
  writeAll,
  writeFile,
  writeJson,
} from "./opfsFiles.js";
import {
  chunkBytes,
  goodChunks,
  type Manifest,
  manifestName,
  readManifest,
  type StoredFile,
  type StoredModel,
  storedBytes,
  summary,
} from "./opfsManifest.js";
import { indexFileName, shardsOf, singleFileName } from "./placeTensors.js";
import { sha256Hex } from "./sha256.js";

/** Files beside the weights, taken where they are there. */
const filesBeside = [
  ...descriptionFileNames,
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  // What `rarefy offload` and `rarefy predict` leave beside a model.
  "offload.json",
  "offload.bin",
  "predictors.json",
  "predictors.safetensors",
];

/** Where a store lies and how its room is found out; for tests and pages with several stores. */
export interface ModelStoreOptions {
  /** Default: "rarefy-models" in the origin's private file system. */
  root?: FileSystemDirectoryHandle;
  /** Default: what the browser says. */
  estimate?: () => Promise<StorageEstimate>;
}

/** How the files of a stored model are read. */
export interface StoredFilesOptions {
  /**
   * By synchronous access handles, straight to where the bytes belong: for models larger than memory (`offload` of `openModel`), of which
   * bundles are read all the time. A file stays open until the model is disposed of, and cannot be written meanwhile. Default: as blobs.
   */
  inPlace?: boolean;
}

/** The files of a stored model. */
export interface StoredModelFiles extends ModelFiles {
  /** Plain names of all of them, and how many bytes each has. */
  readonly sizes: ReadonlyMap<string, number>;
}

/** A model that is being made: files that appear whole or not at all. A `Workspace` of rarefy/pipeline. */
export interface UnfinishedModel {
  /** What has been committed. */
  readonly files: ModelFiles;
  /** Plain names of that. */
  names(): string[];
  readonly sinks: FileSinks;
  remove(name: string): Promise<void>;
}

/**
 * Models in the private file system of a page's origin (OPFS), one directory each. Works in dedicated workers only: that is
 * where browsers allow files to be written in place.
 */
export class ModelStore {
  readonly #root: DirectoryHandle;
  readonly #estimate: () => Promise<StorageEstimate>;

  private constructor(root: FileSystemDirectoryHandle, estimate: () => Promise<StorageEstimate>) {
    this.#root = root as DirectoryHandle;
    this.#estimate = estimate;
  }

  /** @throws DeviceError where the browser gives no private file system (an old one, or a page that is not secure). */
  static async open(options: ModelStoreOptions = {}): Promise<ModelStore> {
    try {
      const root =
        options.root ??
        (await (await navigator.storage.getDirectory()).getDirectoryHandle("rarefy-models", { create: true }));
      return new ModelStore(root, options.estimate ?? (() => navigator.storage.estimate()));
    } catch (cause) {
      const message = "this browser keeps no files for this page; use a current browser, https and no private window";
      throw new DeviceError(message, { cause });
    }
  }

  /** All models, by location. */
  async list(): Promise<StoredModel[]> {
    const models: StoredModel[] = [];
    for await (const entry of this.#root.values()) {
      if (entry.kind !== "directory") continue;
      const manifest = await readManifest(entry as DirectoryHandle);
      if (manifest !== undefined) models.push(summary(manifest));
    }
    return models.toSorted((a, b) => (a.location < b.location ? -1 : 1));
  }

  /**
   * Copies a model into the store, 8 MiB at a time. After an abort or a closed page the next call goes on where this one
   * stopped: chunks that lie in the store are checked against their hashes, and the last one against the source, so that a
   * model that changed in between is fetched anew. At the end all that was written is read back and compared.
   * @throws DeviceError when the browser has no room for it, FormatError for files that are no model, and what the source
   * throws
   */
  async add(source: ModelFiles, job: JobOptions = {}): Promise<StoredModel> {
    const { location } = source;
    const directory = await this.#directory(location, true);
    const known = await readManifest(directory!);
    if (known?.complete) return summary(known);
    // Fails where another page makes a model of this location.
    if (known !== undefined && !isDownload(known)) (await openForWriting(directory!, lockName)).close();
    const sources = await openAll(source);
    try {
      const files = sources.map(({ name, file }): StoredFile => {
        const before = known?.files.find((stored) => stored.name === name && stored.byteLength === file.byteLength);
        return { name, byteLength: file.byteLength, chunks: before?.chunks ?? [] };
      });
      const manifest: Manifest = { location, files, complete: false };
      const keep = () => writeFile(directory!, manifestName, (access) => writeJson(access, manifest));
      const stage = new Stage("store model", summary(manifest).byteLength, "bytes", job.onProgress);
      for (const [i, { file }] of sources.entries()) await checkStored(directory!, files[i], file);
      await this.#checkRoom(summary(manifest), undefined);
      try {
        for (const [i, { file }] of sources.entries()) await copy(directory!, files[i], file, stage, keep, job.signal);
      } catch (cause) {
        if ((cause as Error).name === "QuotaExceededError") await this.#checkRoom(summary(manifest), cause as Error);
        throw cause;
      }
      for (const stored of files) await verify(directory!, stored, location);
      manifest.complete = true;
      await keep();
      return summary(manifest);
    } finally {
      await Promise.all(sources.map(({ file }) => file.close()));
    }
  }

  /**
   * Makes a model in the store, whole or not at all: when `fill` throws or is aborted nothing is left, and what an earlier call
   * left whose page was closed is cleared away first.
   * @param location a name of its own, which no model in the store has
   * @param fill writes the files of the model; its result is passed on
   * @throws UsageError when there is a model of this location, or part of one that `add` began, DeviceError when another page is making one, and what `fill` throws
   */
  async make<T>(
    location: string,
    fill: (model: UnfinishedModel) => Promise<T>,
    { signal, onProgress }: JobOptions = {},
  ): Promise<T> {
    const found = await this.#directory(location, false);
    const known = found && (await readManifest(found));
    if (known?.complete) throw new UsageError(`${location} is in the store already; choose another name`);
    if (known !== undefined && isDownload(known))
      throw new UsageError(`part of ${location} is in the store; load the rest or remove it, or choose another name`);
    // Fails where another page writes there.
    if (found !== undefined) (await openForWriting(found, lockName)).close();
    if (found !== undefined) await this.remove(location);
    const directory = (await this.#directory(location, true))!;
    const lock = await openForWriting(directory, lockName);
    const manifest: Manifest = { location, files: [], complete: false };
    const keep = () => writeFile(directory, manifestName, (access) => writeJson(access, manifest));
    try {
      await keep();
      const names = new Set<string>();
      const result = await fill({
        files: directoryFiles(location, directory, names),
        names: () => [...names],
        sinks: directorySinks(directory, names),
        async remove(name) {
          if (names.delete(name)) await directory.removeEntry(name);
        },
      });
      const stage = new Stage("check what was written", names.size, "files", onProgress);
      for (const name of names) {
        manifest.files.push(await hashed(directory, name, signal));
        stage.advance(1, name);
      }
      manifest.complete = true;
      await keep();
      return result;
    } catch (error) {
      lock.close();
      // What cannot be removed now is removed by the next who makes it; the error tells why there is nothing.
      await this.remove(location).catch(() => {});
      if ((error as Error).name === "QuotaExceededError") throw noRoom(location, error as Error);
      throw error;
    } finally {
      lock.close();
    }
  }

  /**
   * The files of a complete model.
   * @throws UsageError when there is none of this location
   */
  async files(location: string, { inPlace = false }: StoredFilesOptions = {}): Promise<StoredModelFiles> {
    const directory = await this.#directory(location, false);
    const manifest = directory && (await readManifest(directory));
    if (!manifest?.complete) throw new UsageError(`${location} is not in the store, or not all of it`);
    const sizes = new Map(manifest.files.map(({ name, byteLength }) => [name, byteLength]));
    return { ...directoryFiles(location, directory!, new Set(sizes.keys()), inPlace), sizes };
  }

  async remove(location: string): Promise<void> {
    await this.#root.removeEntry(await directoryName(location), { recursive: true });
  }

  async #directory(location: string, create: boolean): Promise<DirectoryHandle | undefined> {
    try {
      return (await this.#root.getDirectoryHandle(await directoryName(location), { create })) as DirectoryHandle;
    } catch (error) {
      if ((error as Error).name === "NotFoundError") return undefined;
      throw error;
    }
  }

  /** @param refusal the browser has refused already, whatever it estimates */
  async #checkRoom({ location, byteLength, storedBytes }: StoredModel, refusal: Error | undefined): Promise<void> {
    const { quota, usage } = await this.#estimate();
    const missing = byteLength - storedBytes;
    const room = quota === undefined || usage === undefined ? Number.POSITIVE_INFINITY : Math.max(0, quota - usage);
    if (missing <= room && refusal === undefined) return;
    const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
    throw new DeviceError(
      `${location} needs ${megabytes(missing)} more, and the browser gives this page ${room < missing ? megabytes(room) : "no more room"}; ` +
        "remove a stored model or free space on the disk, then load it again: what is stored stays",
      { cause: refusal },
    );
  }
}

const noRoom = (location: string, cause: Error): DeviceError =>
  new DeviceError(
    `the browser gives this page no more room for ${location}; remove a stored model or free space on the disk`,
    { cause },
  );

/** Held open while a model is made, so that no other page makes one of the same name. */
const lockName = "lock";

/** What `add` began says from its first chunk on which files there will be; what `make` began says so at its end. */
const isDownload = ({ files }: Manifest): boolean => files.length > 0;

/** Locations are anything; directory names are not. */
const directoryName = async (location: string): Promise<string> => (await sha256Hex(location)).slice(0, 32);

interface OpenFile {
  name: string;
  file: ByteSource;
}

/** Everything that belongs to the model, weights last. @throws FormatError when there is no model */
async function openAll(source: ModelFiles): Promise<OpenFile[]> {
  const opened: OpenFile[] = [];
  const take = async (name: string): Promise<ByteSource | undefined> => {
    const file = await source.open(name);
    if (file !== undefined) opened.push({ name, file });
    return file;
  };
  const require = async (name: string) => {
    if (await take(name)) return;
    throw new FormatError({
      file: source.location,
      problem: `there is no ${name}`,
      hint: "Give a model in Hugging Face layout, with config.json and safetensors weights",
    });
  };
  try {
    for (const name of filesBeside) await (name === "config.json" ? require(name) : take(name));
    if (await take(singleFileName)) return opened;
    const index = await readJsonFile(source, indexFileName);
    if (index !== undefined) {
      await require(indexFileName);
      for (const shard of shardsOf(index, `${source.location}/${indexFileName}`).keys()) await require(shard);
      return opened;
    }
    const gguf = await take(ggufFileName);
    if (gguf === undefined) await require(singleFileName);
    else {
      const { readGgufParts } = await import("./gguf/parts.js");
      await readGgufParts(gguf, (part, count) => take(ggufPartName(part, count)));
    }
    return opened;
  } catch (error) {
    await Promise.all(opened.map(({ file }) => file.close()));
    throw error;
  }
}

/** Drops chunks from the first one on that is not there as its hash says, and all when the source has others. */
async function checkStored(directory: DirectoryHandle, stored: StoredFile, source: ByteSource): Promise<void> {
  if (stored.chunks.length === 0) return;
  const good = await goodChunks(directory, stored);
  stored.chunks.length = good;
  if (good === 0) return;
  const offset = (good - 1) * chunkBytes;
  const last = await source.read(offset, Math.min(chunkBytes, stored.byteLength - offset));
  if ((await sha256Hex(last)) !== stored.chunks[good - 1]) stored.chunks.length = 0;
}

/** Reads back a file that was made here. */
async function hashed(directory: DirectoryHandle, name: string, signal: AbortSignal | undefined): Promise<StoredFile> {
  const file = await (await directory.getFileHandle(name)).getFile();
  const chunks: string[] = [];
  for (let offset = 0; offset < file.size; offset += chunkBytes) {
    await breathe(signal);
    chunks.push(await sha256Hex(new Uint8Array(await file.slice(offset, offset + chunkBytes).arrayBuffer())));
  }
  return { name, byteLength: file.size, chunks };
}

/** Fetches the chunks that are missing; `keep` makes the manifest say so after each. */
async function copy(
  directory: DirectoryHandle,
  stored: StoredFile,
  source: ByteSource,
  stage: Stage,
  keep: () => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  stage.advance(storedBytes(stored), stored.name);
  await writeFile(directory, stored.name, async (access) => {
    access.truncate(storedBytes(stored));
    while (storedBytes(stored) < stored.byteLength) {
      await breathe(signal);
      const offset = storedBytes(stored);
      const bytes = await source.read(offset, Math.min(chunkBytes, stored.byteLength - offset));
      writeAll(access, bytes, offset);
      access.flush();
      stored.chunks.push(await sha256Hex(bytes));
      await keep();
      stage.advance(bytes.byteLength, stored.name);
    }
  });
}

/** @throws FormatError when a file is not what was written; the next `add` fetches it again */
async function verify(directory: DirectoryHandle, stored: StoredFile, location: string): Promise<void> {
  if ((await goodChunks(directory, stored)) === stored.chunks.length) return;
  throw new FormatError({
    file: `${location}/${stored.name}`,
    problem: "the stored copy is not what was loaded",
    hint: "Load the model again; if it happens again the disk is failing",
  });
}

/**
 * A model kept in the page's own storage: fetched the first time, read from there ever after (until the store forgets it:
 * `ModelStore.remove`). Works in dedicated workers only.
 * @throws what `ModelStore.open` and `ModelStore.add` throw
 * @example const opened = await openModel(await storedFiles(urlFiles("https://example.org/models/tiny/")));
 */
export async function storedFiles(source: ModelFiles, job: JobOptions = {}): Promise<ModelFiles> {
  const store = await ModelStore.open();
  const { location } = await store.add(source, job);
  return store.files(location);
}
