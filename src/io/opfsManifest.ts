import { isPlainFileName } from "./fileName.js";
import { isJsonObject } from "./json.js";
import type { DirectoryHandle } from "./opfsFiles.js";
import { sha256Hex } from "./sha256.js";

/** A model in the store, whole or on its way. */
export interface StoredModel {
  /** Where it came from: a URL, the name of a folder. The store knows it by this. */
  location: string;
  /** Of all its files. */
  byteLength: number;
  storedBytes: number;
  /** Everything is there, and was read back and compared once. */
  complete: boolean;
}

/** What a directory of the store says about itself, in `store.json`. */
export interface Manifest {
  location: string;
  files: StoredFile[];
  complete: boolean;
}

export interface StoredFile {
  name: string;
  byteLength: number;
  /** SHA-256 of every chunk written so far. */
  chunks: string[];
}

/** Written, hashed and, after a break, checked at once. */
export const chunkBytes = 8 * 2 ** 20;

export const manifestName = "store.json";

export function summary({ location, files, complete }: Manifest): StoredModel {
  const sum = (count: (file: StoredFile) => number) => files.reduce((total, file) => total + count(file), 0);
  return { location, complete, byteLength: sum((file) => file.byteLength), storedBytes: sum(storedBytes) };
}

export const storedBytes = ({ byteLength, chunks }: StoredFile): number =>
  Math.min(byteLength, chunks.length * chunkBytes);

/** undefined when there is none, or one that makes no sense: the model is then fetched anew. */
export async function readManifest(directory: DirectoryHandle): Promise<Manifest | undefined> {
  try {
    const parsed: unknown = JSON.parse(await (await (await directory.getFileHandle(manifestName)).getFile()).text());
    return isManifest(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function isManifest(value: unknown): value is Manifest {
  if (!isJsonObject(value)) return false;
  const isFile = (file: unknown) =>
    isJsonObject(file) &&
    typeof file.name === "string" &&
    isPlainFileName(file.name) &&
    Number.isSafeInteger(file.byteLength) &&
    Array.isArray(file.chunks) &&
    file.chunks.every((hash) => typeof hash === "string");
  const { location, complete, files } = value;
  return typeof location === "string" && typeof complete === "boolean" && Array.isArray(files) && files.every(isFile);
}

/** How many chunks from the start on are as their hashes say. */
export async function goodChunks(
  directory: DirectoryHandle,
  { name, byteLength, chunks }: StoredFile,
): Promise<number> {
  const file = await (await directory.getFileHandle(name, { create: true })).getFile();
  for (const [i, hash] of chunks.entries()) {
    const end = Math.min(byteLength, (i + 1) * chunkBytes);
    if (file.size < end) return i;
    const bytes = new Uint8Array(await file.slice(i * chunkBytes, end).arrayBuffer());
    if ((await sha256Hex(bytes)) !== hash) return i;
  }
  return chunks.length;
}
