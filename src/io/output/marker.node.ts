import { readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { writeFileAtomic } from "../atomic.node.js";
import { parseJson } from "../json.js";
import { isTemporary, temporaryBeside } from "./temporaries.node.js";

/** Lies in every directory that rarefy makes: what it is, and what of it is ours. */
export const markerName = ".rarefy.json";

const markerSchema = z.strictObject({
  rarefyDirectory: z.literal(1),
  /** running: a job lives in it. finished: its result. */
  state: z.enum(["running", "finished"]),
  /** What made it, in words: "compress". */
  command: z.string(),
  /** SHA-256 over all that decides the result, where that is known. */
  job: z.optional(z.string()),
  /** finished: the files that belong to it. */
  files: z.optional(z.array(z.string())),
});
export type Marker = z.infer<typeof markerSchema>;

/** @returns undefined for a directory that is none of ours, or not there. @throws FormatError for a damaged marker */
export async function readMarker(directory: string): Promise<Marker | undefined> {
  const path = join(directory, markerName);
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
  return checkSchema(markerSchema, parseJson(bytes, path), path);
}

/** Says that a directory is ours. */
export function writeMarker(directory: string, marker: Omit<Marker, "rarefyDirectory">): Promise<void> {
  const text = JSON.stringify({ rarefyDirectory: 1, ...marker }, undefined, 2);
  return writeFileAtomic(join(directory, markerName), new TextEncoder().encode(`${text}\n`));
}

/** What operating systems put into every directory that is looked at. */
const noise = new Set([".DS_Store", "Thumbs.db", "desktop.ini"]);

/** The first file of a directory that is not ours. @param ours by name */
export async function foreignIn(directory: string, ours: (name: string) => boolean): Promise<string | undefined> {
  const names = await readdir(directory);
  return names.find((name) => name !== markerName && !noise.has(name) && !isTemporary(name) && !ours(name));
}

/**
 * Removes a directory that rarefy made, file by file: what is not ours stays, and with it the directory.
 * @param known a path whose next writer clears what a kill leaves of the removal
 * @throws UsageError for a directory that rarefy did not make, or with files that it did not put there
 */
export async function removeOurs(
  directory: string,
  ours: (name: string) => boolean,
  known: string = directory,
): Promise<void> {
  const names = await readdir(directory).catch(() => undefined);
  if (names === undefined) return;
  // A kill while the marker was written leaves a temporary alone.
  const other = names.find((name) => !isTemporary(name));
  if (other !== undefined && !names.includes(markerName)) throw notOurs(directory, other);
  const foreign = await foreignIn(directory, ours);
  if (foreign !== undefined) throw notOurs(directory, foreign);
  // What goes loses its name first, so that a kill leaves all of it or a temporary of a dead process, never a part under the name.
  const gone = await temporaryBeside(known);
  await rename(directory, gone);
  await rm(gone, { recursive: true, force: true });
}

/** What to say of a file that is the user's. */
export const notOurs = (directory: string, name: string): UsageError =>
  new UsageError(
    `${join(directory, name)} was not put there by rarefy, and ${basename(directory)} is replaced or removed by this command; ` +
      "move it, or name another output",
  );
