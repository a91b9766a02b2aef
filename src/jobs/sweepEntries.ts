import { readFile } from "node:fs/promises";
import * as z from "zod/mini";
import { checkSchema } from "../core/internal.js";
import type { ResultRow } from "../eval/index.js";
import { type Compression, parseJson } from "../io/index.js";
import { writeFileAtomic } from "../io/index.node.js";
import { jsonBytes } from "../io/internal.js";
import { compressedLayersSchema, resultRowSchema } from "../report/internal.js";

/** One line of a sweep's table, with what it stands for: a file of its own in the output directory. */
export interface SweepEntry {
  /** SHA-256 over all that decides the row. */
  key: string;
  name: string;
  row: ResultRow;
  /** undefined for the source. */
  recipe?: unknown;
  layers?: Compression["layers"];
}

/** What its file holds. */
export interface StoredEntry extends SweepEntry {
  /** Its speed beside the others, and a key over all that were timed together. */
  timing?: { key: string; row: ResultRow };
}

const storedEntry = z.looseObject({
  key: z.string(),
  name: z.string(),
  row: resultRowSchema,
  recipe: z.optional(z.unknown()),
  layers: z.optional(compressedLayersSchema),
  timing: z.optional(z.looseObject({ key: z.string(), row: resultRowSchema })),
});

/** @returns undefined when there is none. @throws FormatError for a file that no sweep wrote */
export async function readEntry(path: string): Promise<StoredEntry | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  return checkEntry(parseJson(bytes, path), path, "Remove the file, and the same command measures it again");
}

/** @param file what it is, for the message. @param hint what to do when it is none. @throws FormatError for what is no entry */
export function checkEntry(raw: unknown, file: string, hint: string): StoredEntry {
  checkSchema(storedEntry, raw, file, hint);
  return raw as StoredEntry;
}

/** Writes a value as indented JSON, whole or not at all. */
export function writeJsonFile(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, jsonBytes(value));
}
