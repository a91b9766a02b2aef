import { FormatError } from "../core/index.js";
import type { ModelFiles } from "./byteSource.js";
import { decodeUtf8, readWhole } from "./textFile.js";

/** Configs and indexes are far smaller. */
const maxJsonBytes = 64 * 2 ** 20;

/**
 * Parses strict UTF-8 JSON and refuses duplicate keys, which `JSON.parse` would drop in silence.
 * A key "__proto__" becomes an own property, as in `JSON.parse`: iterate with `Object.entries`, keep in a `Map`.
 * @throws FormatError
 */
export function parseJson(bytes: Uint8Array, file: string): unknown {
  const text = decodeUtf8(bytes, file);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError({ file, problem: `not JSON (${(cause as Error).message})` }, { cause });
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) throw new FormatError({ file, field: duplicate, problem: "the key occurs twice" });
  return value;
}

/** The first key that one object of a valid JSON text has twice. */
function findDuplicateKey(text: string): string | undefined {
  // One entry per open bracket: the keys so far of an object, undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let string = "";
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === 0x22) {
      const start = i;
      for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
      string = text.slice(start, i + 1);
    } else if (char === 0x7b) {
      open.push(new Set());
    } else if (char === 0x5b) {
      open.push(undefined);
    } else if (char === 0x7d || char === 0x5d) {
      open.pop();
    } else if (char === 0x3a) {
      // The same key may be spelt with and without escapes.
      const key: string = string.includes("\\") ? JSON.parse(string) : string.slice(1, -1);
      const keys = open[open.length - 1]!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

/**
 * Reads a JSON file of a model.
 * @returns undefined when there is none
 * @throws FormatError, also for a file above `maxBytes`
 */
export async function readJsonFile(
  files: ModelFiles,
  name: string,
  maxBytes = maxJsonBytes,
): Promise<unknown | undefined> {
  const source = await files.open(name);
  if (source === undefined) return undefined;
  return parseJson(await readWhole(source, maxBytes), source.name);
}

/** A JSON object, not an array, not null. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
